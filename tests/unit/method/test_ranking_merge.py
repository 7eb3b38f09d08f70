"""A second ranking of a prompt joins the known one where the order can be told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.method.ranking_merge import NotMerged, merge
from rewardloop.records import MAX_RANKED_RESPONSES, RankedText
from tests.unit.cases import for_each


def ranking(**ranks: int) -> list[RankedText]:
    return [RankedText(text, rank) for text, rank in ranks.items()]


def merged(known: list[RankedText], new: list[RankedText]) -> dict[str, int]:
    return {response.text: response.rank for response in merge(known, new).responses}


KNOWN = ranking(a=0, b=3, c=7)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (ranking(x=0, a=1), {"x": 0, "a": 1, "b": 2, "c": 3}),
        (ranking(c=0, x=1), {"a": 0, "b": 1, "c": 2, "x": 3}),
        (ranking(a=0, x=1, b=2), {"a": 0, "x": 1, "b": 2, "c": 3}),
        (ranking(b=5, x=5), {"a": 0, "b": 1, "x": 1, "c": 2}),
        (ranking(b=0, x=1, y=1, c=2), {"a": 0, "b": 1, "x": 2, "y": 2, "c": 3}),
        (ranking(b=0, y=2, x=1, c=3), {"a": 0, "b": 1, "x": 2, "y": 3, "c": 4}),
    ],
    ids=["best", "worst", "between", "tied", "tied new ones", "two in one gap"],
)
def test_a_new_response_takes_the_place_that_the_shared_texts_tell(
    new: list[RankedText], expected: dict[str, int]
) -> None:
    found = merge(KNOWN, new)
    assert {r.text: r.rank for r in found.responses} == expected
    assert [r.rank for r in found.responses] == sorted(expected.values())
    assert found.num_new == len(expected) - 3
    assert not found.left_out


@for_each(
    "new, reason, num",
    [
        (ranking(a=0, x=1), NotMerged.ORDER_UNKNOWN, 1),
        (ranking(a=0, x=1, c=2), NotMerged.ORDER_UNKNOWN, 1),
        (ranking(x=0, y=1), NotMerged.ORDER_UNKNOWN, 2),
        (ranking(b=0, a=1), NotMerged.CONTRADICTS_KNOWN_ORDER, 2),
        (ranking(a=0, b=0), NotMerged.CONTRADICTS_KNOWN_ORDER, 2),
        (ranking(c=0, b=1, a=2), NotMerged.CONTRADICTS_KNOWN_ORDER, 3),
        (ranking(a=1, x=1, b=1), NotMerged.CONTRADICTS_KNOWN_ORDER, 3),
        (ranking(b=0, x=1, a=2), NotMerged.CONTRADICTS_KNOWN_ORDER, 3),
        (ranking(a=0, x=1, b=1, c=1), NotMerged.CONTRADICTS_KNOWN_ORDER, 3),
    ],
)
def test_what_is_not_told_or_told_in_two_ways_is_left_out(
    new: list[RankedText], reason: NotMerged, num: int
) -> None:
    found = merge(KNOWN, new)
    assert list(found.responses) == KNOWN
    assert found.num_new == 0
    assert found.left_out == {reason: num}


def test_a_contradiction_elsewhere_does_not_keep_a_clear_place_away() -> None:
    found = merge(KNOWN, ranking(b=0, a=1, c=2, x=3))
    assert [r.text for r in found.responses] == ["a", "b", "c", "x"]
    assert found.left_out == {NotMerged.CONTRADICTS_KNOWN_ORDER: 2}


def test_what_stands_between_two_tied_responses_has_no_place() -> None:
    tied = ranking(a=0, b=0, c=1)
    found = merge(tied, ranking(a=0, x=1, b=2))
    assert list(found.responses) == tied
    assert found.left_out == {NotMerged.CONTRADICTS_KNOWN_ORDER: 3}


def test_texts_are_the_same_up_to_unicode_form_and_outer_blanks() -> None:
    known = [RankedText("caf\u00e9", 0), RankedText("tea", 1)]
    new = [RankedText(" cafe\u0301\n", 0), RankedText("water", 2), RankedText("tea ", 1)]
    assert merged(known, new) == {"caf\u00e9": 0, "tea": 1, "water": 2}
    assert merged(known, new[:2]) == {"caf\u00e9": 0, "tea": 1}
    assert merged(known, [RankedText("Tea", 0), RankedText("tea", 1)]) == merged(known, [])


def test_of_a_new_text_that_stands_twice_the_better_rank_counts() -> None:
    new = [RankedText("c", 0), RankedText("x", 3), RankedText("x ", 1)]
    assert merged(KNOWN, new) == {"a": 0, "b": 1, "c": 2, "x ": 3}


def test_a_prompt_holds_so_many_responses_and_no_more() -> None:
    known = [RankedText(str(n), n) for n in range(MAX_RANKED_RESPONSES - 1)]
    found = merge(known, [RankedText("x", 0), RankedText("y", 1), RankedText("0", 2)])
    assert len(found.responses) == MAX_RANKED_RESPONSES
    assert found.responses[0].text == "x"
    assert found.left_out == {NotMerged.TOO_MANY: 1}


RANKINGS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 4), min_size=2)


@settings(max_examples=60, deadline=None)
@given(RANKINGS, RANKINGS)
def test_the_known_order_never_changes_and_a_second_time_adds_nothing(
    known: dict[str, int], new: dict[str, int]
) -> None:
    before = sorted(ranking(**known), key=lambda r: r.rank)
    found = merge(before, ranking(**new))
    after = {response.text: response.rank for response in found.responses}
    for first in known:
        for second in known:
            assert (known[first] < known[second]) == (after[first] < after[second])
    for first in new.keys() - known.keys() & after.keys():
        for second in new.keys() & after.keys():
            if first in after and new[first] < new[second]:
                assert after[first] < after[second]
    again = merge(found.responses, ranking(**new))
    assert again.responses == found.responses
    assert again.num_new == 0
