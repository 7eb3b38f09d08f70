"""Tests tests.unit.cases: a folded table must fail as its cases would."""

import pytest

from tests.unit.cases import for_each


def test_every_case_is_tried_and_each_that_fails_is_named() -> None:
    tried = []

    @for_each("given, expected", [(1, 1), (2, 3), (3, 3), (4, 5)])
    def compare(given: int, expected: int) -> None:
        tried.append(given)
        assert given == expected

    with pytest.raises(BaseExceptionGroup, match="2 of 4 cases failed") as failed:
        compare()
    assert tried == [1, 2, 3, 4]
    notes = [failure.__notes__ for failure in failed.value.exceptions]
    assert notes == [["with {'given': 2, 'expected': 3}"], ["with {'given': 4, 'expected': 5}"]]


def test_an_error_that_does_not_come_is_a_failure_of_its_case() -> None:
    @for_each("text", ["1", "x"])
    def refused(text: str) -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            int(text)

    with pytest.raises(BaseExceptionGroup, match="1 of 2 cases failed") as failed:
        refused()
    (only,) = failed.value.exceptions
    assert only.__notes__ == ["with {'text': '1'}"]


def test_tables_whose_cases_pass_pass_and_an_empty_one_is_refused() -> None:
    for_each("text", ["a", "b"])(lambda text: None)()
    with pytest.raises(AssertionError, match="would test nothing"):
        for_each("text", [])
