"""Orders are merged through what they imply, and nothing is invented."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.datasets.order import merge
from tests.unit.cases import for_each


def pairs(*told: str) -> list[dict[str, float]]:
    """ "ab" says that a is better than b, "a=b" that they are tied."""
    return [{each[0]: 0, each[-1]: int("=" not in each)} for each in told]


@for_each(
    "told, ranks",
    [
        (["ab"], {"a": 0, "b": 1}),
        (["bc", "ab"], {"a": 0, "b": 1, "c": 2}),
        (["ab", "bc", "ac"], {"a": 0, "b": 1, "c": 2}),
        (["a=b", "bc"], {"a": 0, "b": 0, "c": 1}),
        (["ab", "ab"], {"a": 0, "b": 1}),
        (["ab", "ac", "b=c"], {"a": 0, "b": 1, "c": 1}),
        (["ab", "bc", "cd", "xd"], {"a": 0, "b": 1, "c": 2, "d": 3}),
        (["a=b", "cd"], {"c": 0, "d": 1}),
    ],
)
def test_orders_that_agree(told: list[str], ranks: dict[str, int]) -> None:
    merged = merge(pairs(*told), "abcdx"[: 5 if "x" in str(told) else 4 if "d" in str(told) else 3])
    assert {key: rank for key, rank in merged.ranks.items() if key in "".join(told)} == ranks
    assert not merged.contradictory


@pytest.mark.parametrize(
    ("told", "contradictory"),
    [
        (["ab", "ba"], "ab"),
        (["ab", "bc", "ca"], "abc"),
        (["ab", "a=b"], "ab"),
        (["ab", "ba", "cd"], "ab"),
        (["ab", "b=c", "ca"], "abc"),
    ],
)
def test_orders_that_contradict_each_other(told: list[str], contradictory: str) -> None:
    merged = merge(pairs(*told), sorted(set("".join(told)) - {"="}))
    assert merged.contradictory == set(contradictory)
    assert not set(merged.ranks) & merged.contradictory


def test_what_nobody_told_is_left_out() -> None:
    merged = merge(pairs("ab", "cd"), "abcd")
    assert dict(merged.ranks) == {"a": 0, "b": 1}
    assert merged.untold == {"c", "d"}


def test_the_longer_run_is_kept() -> None:
    merged = merge(pairs("ab", "cd", "de"), "abcde")
    assert dict(merged.ranks) == {"c": 0, "d": 1, "e": 2}
    assert merged.untold == {"a", "b"}


@given(st.lists(st.permutations("abcde").map(lambda keys: keys[:2]), max_size=8))
def test_every_order_that_is_kept_was_told(told: list[list[str]]) -> None:
    orders: list[dict[str, float]] = [{better: 0, worse: 1} for better, worse in told]
    reach = {(better, worse) for better, worse in told}
    for _ in range(5):
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    merged = merge(orders, sorted({key for pair in told for key in pair}))
    for a, b in combinations(merged.ranks, 2):
        assert merged.ranks[a] != merged.ranks[b]
        better, worse = sorted((a, b), key=lambda key: merged.ranks[key])
        assert (better, worse) in reach
        assert (worse, better) not in reach
    keys = set(merged.ranks) | merged.contradictory | merged.untold
    assert keys == {key for pair in told for key in pair}


@pytest.mark.parametrize(
    ("told", "kept", "untold"),
    [
        # As many answers in each run: the one with the earlier keys.
        (["cd", "ab"], "ab", "cd"),
        (["ad", "bc"], "ad", "bc"),
        (["bd", "ac"], "ac", "bd"),
        # A tie counts as two answers.
        (["ab", "bc", "d=e", "ef", "fg"], "defg", "abc"),
        # A single answer that is tied with nobody is no run.
        (["a=b", "c=d", "de"], "cde", "ab"),
    ],
)
def test_of_two_runs_the_heavier_and_then_the_earlier_is_kept(
    told: list[str], kept: str, untold: str
) -> None:
    merged = merge(pairs(*told), sorted(set("".join(told)) - {"="}))
    assert set(merged.ranks) == set(kept)
    assert merged.untold == set(untold)


def test_nothing_is_merged_of_nothing() -> None:
    merged = merge([], [])
    assert (dict(merged.ranks), merged.contradictory, merged.untold) == ({}, set(), set())
