"""Head to head: what two orders mean, and how sure the rates are."""

from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.method.head_to_head import (
    ComparedPrompt,
    HeadToHead,
    Outcome,
    head_to_head,
    outcome,
    outcome_of,
    with_intervals,
)
from rewardloop.method.head_to_head import (
    compared as from_orders,
)
from rewardloop.method.intervals import wilson
from rewardloop.records import Preference
from tests.unit.cases import for_each

FIRST, SECOND, TIE = Preference
WIN, LOSS, DRAW = (FIRST, SECOND), (SECOND, FIRST), (TIE, TIE)

judgements = st.sampled_from([FIRST, SECOND, TIE, None])
prompts = st.builds(ComparedPrompt, judgements, judgements, st.integers(0, 99), st.integers(0, 99))


def compared(
    *orders: tuple[Preference | None, Preference | None], lengths: tuple[int, int] = (10, 20)
) -> list[ComparedPrompt]:
    return [ComparedPrompt(a_first, b_first, *lengths) for a_first, b_first in orders]


def swapped(row: ComparedPrompt) -> ComparedPrompt:
    """The same prompt with A and B named the other way round."""
    return ComparedPrompt(row.b_first, row.a_first, row.length_b, row.length_a)


@for_each(
    "a_first, b_first, expected",
    [
        (FIRST, SECOND, Outcome.WIN),
        (SECOND, FIRST, Outcome.LOSS),
        (FIRST, FIRST, Outcome.TIE),
        (SECOND, SECOND, Outcome.TIE),
        (TIE, TIE, Outcome.TIE),
        (FIRST, TIE, Outcome.TIE),
        (SECOND, TIE, Outcome.TIE),
        (TIE, FIRST, Outcome.TIE),
        (TIE, SECOND, Outcome.TIE),
        (None, SECOND, Outcome.UNDECIDED),
        (FIRST, None, Outcome.UNDECIDED),
        (None, TIE, Outcome.UNDECIDED),
        (TIE, None, Outcome.UNDECIDED),
        (None, None, Outcome.UNDECIDED),
    ],
)
def test_an_outcome_needs_both_orders(
    a_first: Preference | None, b_first: Preference | None, expected: Outcome
) -> None:
    assert outcome(a_first, b_first) is expected


def test_counts_and_rates_by_hand() -> None:
    rows = compared(WIN, WIN, WIN, LOSS, DRAW, (FIRST, FIRST), (TIE, SECOND), (None, FIRST))
    found = head_to_head([*rows, *compared((FIRST, FIRST), lengths=(100, 2))])
    assert (found.num_prompts, found.num_undecided) == (9, 1)
    assert (found.num_wins, found.num_losses, found.num_ties) == (3, 1, 4)
    assert (found.win_rate, found.loss_rate, found.tie_rate) == (3 / 8, 1 / 8, 4 / 8)
    assert found.net_win_rate == 2 / 8
    assert (found.mean_length_a, found.mean_length_b) == (180 / 9, 162 / 9)


def test_the_papers_rates_come_out() -> None:
    """M2 against M1 on 256 prompts: 55.5 % won, 11.7 % lost."""
    found = head_to_head(compared(*[WIN] * 142, *[LOSS] * 30, *[DRAW] * 84))
    assert found.win_rate == pytest.approx(0.555, abs=5e-4)
    assert found.loss_rate == pytest.approx(0.117, abs=5e-4)


def test_undecided_prompts_are_no_ties() -> None:
    found = head_to_head(compared(WIN, (FIRST, None), (None, None)))
    assert (found.num_ties, found.num_undecided, found.win_rate) == (0, 2, 1.0)


@pytest.mark.parametrize("rows", [[], compared((None, FIRST), (None, None), lengths=(4, 6))])
def test_nothing_decided_has_no_rates(rows: list[ComparedPrompt]) -> None:
    assert head_to_head(rows) == HeadToHead(
        num_prompts=len(rows),
        num_wins=0,
        num_losses=0,
        num_ties=0,
        num_undecided=len(rows),
        win_rate=None,
        loss_rate=None,
        tie_rate=None,
        net_win_rate=None,
        net_low=None,
        net_high=None,
        win_low=None,
        win_high=None,
        mean_length_a=4 if rows else None,
        mean_length_b=6 if rows else None,
        position_bias=None,
        interval_reason="fewer than 10 prompts",
    )


def test_position_bias_is_of_the_orders_that_contradict_each_other() -> None:
    same_place = [(FIRST, FIRST)] * 3 + [(SECOND, SECOND)]
    beside_it = [WIN, LOSS, DRAW, (FIRST, TIE), (TIE, FIRST), (FIRST, None), (None, None)]
    assert head_to_head(compared(*same_place, *beside_it)).position_bias == 3 / 4
    assert head_to_head(compared(*beside_it)).position_bias is None


DECIDED = compared(*[WIN, LOSS, DRAW] * 4)
"""Enough for intervals."""


@given(st.lists(prompts, max_size=12).map(lambda rows: [*rows, *DECIDED]))
@settings(max_examples=8)
def test_swapping_a_and_b_swaps_wins_and_losses_and_nothing_else(
    rows: list[ComparedPrompt],
) -> None:
    ours, theirs = head_to_head(rows), head_to_head([swapped(row) for row in rows])
    low, high = wilson(ours.num_losses, len(rows) - ours.num_undecided)
    expected = replace(
        ours,
        num_wins=ours.num_losses,
        num_losses=ours.num_wins,
        win_rate=ours.loss_rate,
        loss_rate=ours.win_rate,
        net_win_rate=negative(ours.net_win_rate),
        net_low=theirs.net_low,
        net_high=theirs.net_high,
        win_low=float(low),
        win_high=float(high),
        mean_length_a=ours.mean_length_b,
        mean_length_b=ours.mean_length_a,
    )
    assert theirs == expected
    assert theirs.net_low == pytest.approx(negative(ours.net_high))
    assert theirs.net_high == pytest.approx(negative(ours.net_low))


def negative(value: float | None) -> float | None:
    return None if value is None else -value


@given(st.lists(prompts, max_size=12))
@settings(max_examples=8)
def test_rates_are_in_their_intervals(rows: list[ComparedPrompt]) -> None:
    found = head_to_head([*rows, *DECIDED])
    shares = [found.win_rate, found.loss_rate, found.tie_rate]
    assert sum(share for share in shares if share is not None) == pytest.approx(1)
    assert_ordered(0, found.win_low, found.win_rate, found.win_high, 1)
    assert_ordered(-1, found.net_low, found.net_win_rate, found.net_high, 1)


def assert_ordered(*values: float | None) -> None:
    known = [value for value in values if value is not None]
    assert len(known) == len(values)
    assert all(left <= right + 1e-12 for left, right in pairwise(known))


def test_more_prompts_make_a_narrower_interval() -> None:
    def width(times: int) -> float:
        found = head_to_head(compared(*[WIN, WIN, LOSS, DRAW] * times))
        assert found.net_low is not None
        assert found.net_high is not None
        return found.net_high - found.net_low

    assert width(64) == pytest.approx(width(16) / 2, rel=0.1)


def test_undecided_prompts_do_not_touch_the_intervals() -> None:
    decided = compared(*[WIN] * 12, *[LOSS] * 5, *[DRAW] * 7)
    found, with_others = head_to_head(decided), head_to_head([*decided, *compared((None, TIE))])
    assert (found.net_low, found.net_high, found.win_low, found.win_high) == (
        *(with_others.net_low, with_others.net_high),
        *(with_others.win_low, with_others.win_high),
    )


def test_ties_alone_do_not_give_a_width_of_nothing() -> None:
    """24 ties: -+ z^2 / (24 + z^2), z^2 = 3.841459."""
    found = head_to_head(compared(*[DRAW] * 24))
    assert (found.net_low, found.net_high) == pytest.approx((-0.137976, 0.137976), abs=1e-6)
    assert found.interval_over == "decided prompts"


def test_few_prompts_have_no_interval_but_the_reason() -> None:
    """Of ten prompts nine are decided."""
    found = head_to_head(compared(*[WIN] * 9, (None, FIRST)))
    assert (found.net_low, found.net_high, found.win_low, found.win_high) == (None,) * 4
    assert found.interval_reason == "fewer than 10 prompts"
    assert head_to_head(compared(*[WIN] * 10)).interval_reason is None


def test_older_results_get_the_intervals_of_today() -> None:
    """The bootstrap's of 24 ties was a point, and stood in reports as Tango's."""
    today = asdict(head_to_head(compared(*[DRAW] * 24)))
    new = ("interval_over", "interval_reason")
    older = {key: value for key, value in today.items() if key not in new}
    older |= {"net_low": 0.0, "net_high": 0.0}
    assert with_intervals(older) == today
    assert today["net_low"] < -0.1 < 0.1 < today["net_high"]
    assert with_intervals(today) == today
    few = with_intervals({**older, "num_ties": 4, "win_low": 0.0, "win_high": 0.5})
    assert few is not None
    assert few["win_low"] is None
    assert few["interval_reason"] == "fewer than 10 prompts"
    assert with_intervals(None) is None


def test_older_results_are_counted_with_their_ties() -> None:
    found = with_intervals({"num_wins": 12, "num_losses": 5, "num_ties": 13})
    assert found is not None
    low, high = wilson(12, 30)
    assert (found["win_low"], found["win_high"]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("of_first", "of_second", "mean", "expected"),
    [
        (0.9, 0.2, 0.85, Outcome.WIN),
        (0.7, 0.6, 0.55, Outcome.WIN),  # likes the first place, and A more
        (0.6, 0.7, 0.45, Outcome.LOSS),
        (0.7, 0.7, 0.5, Outcome.TIE),  # the place is all it sees
        (0.1, 0.8, 0.15, Outcome.LOSS),
    ],
)
def test_by_expectation_the_mean_of_both_orders_decides(
    of_first: float, of_second: float, mean: float, expected: Outcome
) -> None:
    """The probability of whatever is shown first: A, then B."""
    sides = [FIRST if p > 0.5 else SECOND for p in (of_first, of_second)]
    row = from_orders((sides[0], of_first), (sides[1], of_second), length_a=1, length_b=2)
    assert row.probability_a == mean
    assert outcome_of(row) is expected
    other = from_orders((sides[1], of_second), (sides[0], of_first), length_a=2, length_b=1)
    assert other.probability_a == round(1 - mean, 9)


def test_a_mean_needs_both_orders_by_expectation() -> None:
    row = from_orders((FIRST, 0.9), (None, None), length_a=1, length_b=1)
    assert (row.probability_a, outcome_of(row)) == (None, Outcome.UNDECIDED)
    written = from_orders((FIRST, None), (SECOND, None), length_a=1, length_b=1)
    assert (written.probability_a, outcome_of(written)) == (None, Outcome.WIN)


def test_the_mean_probability_is_over_the_decided_prompts() -> None:
    rows = [
        from_orders((FIRST, 0.9), (SECOND, 0.1), length_a=1, length_b=1),
        from_orders((SECOND, 0.2), (FIRST, 0.6), length_a=1, length_b=1),
        from_orders((None, None), (SECOND, 0.1), length_a=1, length_b=1),
    ]
    found = head_to_head(rows)
    assert (found.num_wins, found.num_losses, found.num_undecided) == (1, 1, 1)
    assert found.mean_probability == pytest.approx(0.6)  # (0.9 + 0.3) / 2
    assert head_to_head(compared(WIN)).mean_probability is None
