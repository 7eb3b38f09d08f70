"""Labels, numbers and ranks of any type, and what is no label.

Tests `rewardloop.datasets.labels`.
"""

import pytest

from rewardloop.datasets import labels
from rewardloop.datasets.reasons import RowLeftOut
from tests.unit.cases import for_each


@for_each(
    "value",
    [True, 1, 1.0, "1", "+1", "True", " yes ", "Thumbs Up", "thumbs-up", "like", "\U0001f44d"],
)
def test_good(value: object) -> None:
    assert labels.is_liked(value, "label") is True


@for_each(
    "value", [False, 0, -1, 0.0, -1.0, "-1", "no", "Thumbs Down", "thumbs-down", "\U0001f44e"]
)
def test_bad(value: object) -> None:
    assert labels.is_liked(value, "label") is False


@pytest.mark.parametrize("value", [2, 0.5, "maybe", "", None, ["good"], {"good": 1}])
def test_neither(value: object) -> None:
    with pytest.raises(RowLeftOut, match=r'"label" is .* not known to mean good or bad'):
        labels.is_liked(value, "label")


@pytest.mark.parametrize(("length", "shown"), [(58, 60), (59, 63), (200, 63)])
def test_a_long_value_is_shown_in_part(length: int, shown: int) -> None:
    """60 characters with its quotation marks, and three dots where there are more."""
    told = str(labels.not_understood("c", "x" * length))
    value = told.removeprefix('"c" is ').removesuffix(", which is not known to mean good or bad")
    assert len(value) == shown
    assert value.endswith("...") is (shown == 63)


@pytest.mark.parametrize(
    ("value", "is_word"), [("good", True), ("Bad", True), ("fine words", False), (3, True)]
)
def test_a_word_is_no_free_text(value: object, is_word: bool) -> None:
    assert labels.is_word(value) is is_word


@pytest.mark.parametrize(
    ("value", "is_against"),
    [
        ("bad", True),
        ("Thumbs-Down", True),
        ("unsafe", True),
        ("no", False),
        ("0", False),
        (0, False),
    ],
)
def test_a_word_against_an_answer_in_any_column(value: object, is_against: bool) -> None:
    assert labels.is_verdict_against(value) is is_against


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), ("2.5", 2.5), (" -3 ", -3.0), ("1e3", 1000.0)]
)
def test_numbers(value: object, number: float) -> None:
    assert labels.number(value, "score") == number


@pytest.mark.parametrize("value", [True, None, "x", "nan", float("inf"), 10**400, [1]])
def test_no_numbers(value: object) -> None:
    with pytest.raises(RowLeftOut):
        labels.number(value, "score")


@pytest.mark.parametrize(
    ("value", "rank"), [(0, 0), (1.0, 1), ("2", 2), (2**31 - 1, 2**31 - 1), ("0.0", 0)]
)
def test_ranks(value: object, rank: int) -> None:
    assert labels.rank(value, "a") == rank


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1, "-1"),
        (0.5, "0.5"),
        (2**31, str(2**31)),
        ("first", "first"),
        (True, "a boolean"),
        (None, "null"),
        ([1], "an array"),
    ],
)
def test_no_ranks(value: object, shown: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared whole)
        labels.rank(value, "reply 2")
    assert str(caught.value) == (
        f'the "rank" of reply 2 is {shown}, not a whole number from 0 to 2147483647'
    )
