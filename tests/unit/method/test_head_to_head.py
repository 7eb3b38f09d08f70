"""Head to head: what two orders mean, and how sure the rates are."""

from dataclasses import replace
from itertools import pairwise
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.method.head_to_head import (
    ComparedPrompt,
    HeadToHead,
    Outcome,
    head_to_head,
    net_interval,
    outcome,
    wilson_interval,
)
from rewardloop.records import Preference

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


@pytest.mark.parametrize(
    ("a_first", "b_first", "expected"),
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
    )


def test_position_bias_is_of_the_orders_that_contradict_each_other() -> None:
    same_place = [(FIRST, FIRST)] * 3 + [(SECOND, SECOND)]
    beside_it = [WIN, LOSS, DRAW, (FIRST, TIE), (TIE, FIRST), (FIRST, None), (None, None)]
    assert head_to_head(compared(*same_place, *beside_it)).position_bias == 3 / 4
    assert head_to_head(compared(*beside_it)).position_bias is None


@given(st.lists(prompts, max_size=12))
@settings(max_examples=8)
def test_swapping_a_and_b_swaps_wins_and_losses_and_nothing_else(
    rows: list[ComparedPrompt],
) -> None:
    ours, theirs = head_to_head(rows), head_to_head([swapped(row) for row in rows])
    low, high = wilson_interval(ours.num_losses, len(rows) - ours.num_undecided)
    expected = replace(
        ours,
        num_wins=ours.num_losses,
        num_losses=ours.num_wins,
        win_rate=ours.loss_rate,
        loss_rate=ours.win_rate,
        net_win_rate=negative(ours.net_win_rate),
        net_low=theirs.net_low,
        net_high=theirs.net_high,
        win_low=low,
        win_high=high,
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
    found = head_to_head([*rows, ComparedPrompt(TIE, TIE, 1, 1)])
    shares = [found.win_rate, found.loss_rate, found.tie_rate]
    assert sum(share for share in shares if share is not None) == pytest.approx(1)
    assert_ordered(0, found.win_low, found.win_rate, found.win_high, 1)
    assert_ordered(-1, found.net_low, found.net_win_rate, found.net_high, 1)


def assert_ordered(*values: float | None) -> None:
    known = [value for value in values if value is not None]
    assert len(known) == len(values)
    assert all(left <= right + 1e-12 for left, right in pairwise(known))


def test_wilsons_interval_by_hand() -> None:
    """z^2 = 3.841459: (0.5 + 0.192073 -+ 1.959964 sqrt(0.025 + 0.00960365)) / 1.3841459."""
    assert wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    # Of 142 of 256: (0.5546875 + 0.00750285 -+ 1.959964 sqrt(0.0009648800 + 0.0000146540))
    # / 1.0150057, where p (1 - p) / n = 0.5546875 * 0.4453125 / 256.
    assert wilson_interval(142, 256) == pytest.approx((0.493444, 0.614314), abs=1e-6)
    assert wilson_interval(0, 10) == pytest.approx((0, 3.841459 / 13.841459), abs=1e-6)
    assert wilson_interval(0, 0) == (None, None)


def test_the_bootstrap_interval_is_that_of_the_exact_distribution() -> None:
    """400 prompts without ties: a resample's wins are binomial(400, 0.7), whose 2.5th and
    97.5th percentiles, 262 and 298, follow from summing it. One win is 0.005."""
    outcomes = [Outcome.WIN] * 280 + [Outcome.LOSS] * 120
    wins = [binomial_quantile(400, 0.7, tail) for tail in (0.025, 0.975)]
    assert wins == [262, 298]
    low, high = (2 * num_wins / 400 - 1 for num_wins in wins)
    assert net_interval(outcomes, 0) == pytest.approx((low, high), abs=0.0051)


def binomial_quantile(n: int, p: float, tail: float) -> int:
    below, k = 0.0, -1
    while below < tail:
        k += 1
        below += comb(n, k) * p**k * (1 - p) ** (n - k)
    return k


def test_more_prompts_make_a_narrower_interval() -> None:
    def width(times: int) -> float:
        found = head_to_head(compared(*[WIN, WIN, LOSS, DRAW] * times))
        assert found.net_low is not None
        assert found.net_high is not None
        return found.net_high - found.net_low

    assert width(64) == pytest.approx(width(16) / 2, rel=0.1)


def test_undecided_prompts_do_not_touch_the_interval() -> None:
    decided = [Outcome.WIN, Outcome.LOSS, Outcome.TIE, Outcome.WIN]
    with_others = [Outcome.UNDECIDED, *decided, Outcome.UNDECIDED]
    assert net_interval(with_others, 0) == net_interval(decided, 0)


def test_one_outcome_only_is_a_point() -> None:
    assert net_interval([Outcome.LOSS] * 7, 0) == (-1, -1)


def test_how_many_draws_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [Outcome.WIN] * 9 + [Outcome.LOSS] * 5 + [Outcome.TIE] * 7
    at_once = net_interval(outcomes, 0)
    monkeypatch.setattr(
        f"{net_interval.__module__}.NUM_DRAWS_AT_ONCE", 1000
    )  # 47 resamples, then 36 at last
    assert net_interval(outcomes, 0) == at_once


def test_the_seed_decides_the_resamples() -> None:
    rows = compared(*[WIN] * 501, *[LOSS] * 313, *[DRAW] * 183)
    first, again, other = (head_to_head(rows, seed) for seed in (3, 3, 4))
    assert first == again
    assert (first.net_low, first.net_high) != (other.net_low, other.net_high)
