"""A judge held against human rankings, by hand and against SciPy."""

import json
from dataclasses import asdict, replace
from itertools import combinations
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from rewardloop.method.agreement import Agreement, JudgedRanking, agreement, rank_correlation

Scores = tuple[float | None, ...]


def of(*prompts: tuple[tuple[int, ...], Scores]) -> Agreement:
    return agreement(JudgedRanking(ranks, scores) for ranks, scores in prompts)


def pairs(found: Agreement) -> tuple[int, int, int, int]:
    return found.num_agreeing, found.num_reversed, found.num_tied, found.num_missing_pairs


def test_three_prompts_by_hand() -> None:
    found = of(
        # All three pairs agree; the one 5 is on the best; rho 1, tau 1.
        ((0, 1, 2), (5.0, 3.0, 1.0)),
        # (0,1) reversed, (0,2) agrees, (1,2) agrees; the one 5 is on the second.
        # rho = 1 - 6 * (1 + 1 + 0) / (3 * 8) = 0.5; tau = (2 - 1) / 3.
        ((0, 1, 2), (4.0, 5.0, 1.0)),
        # Tied, and both 5: one on the best, one not; no correlation.
        ((1, 0), (5.0, 5.0)),
    )
    assert replace(found, intervals={}) == Agreement(
        num_prompts=3,
        num_responses=8,
        num_scored=8,
        num_agreeing=5,
        num_reversed=1,
        num_tied=1,
        num_missing_pairs=0,
        num_top_scored=4,
        num_fully_scored=3,
        num_ranked_prompts=2,
        num_constant=1,
        pairwise_accuracy=5 / 7,
        five_best=2 / 4,
        exact_order=1 / 3,
        spearman=pytest.approx(0.75),
        kendall_tau=pytest.approx(2 / 3),
        pairwise_accuracy_ties_half=5.5 / 7,
    )


def test_nothing_to_measure_is_none_and_never_nan() -> None:
    found = agreement([])
    figures = asdict(found)
    assert {each["reason"] for each in figures.pop("intervals").values()} == {
        "fewer than 10 prompts"
    }
    assert set(figures.values()) == {0, None}
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["pairwise_accuracy"] is None


def test_humans_who_tied_two_ask_nothing_of_the_judge() -> None:
    # Only (0, 2) and (1, 2) count, and both agree; the judge's order of the first two is free.
    found = of(((0, 0, 1), (3.0, 4.0, 2.0)))
    assert pairs(found) == (2, 0, 0, 0)
    assert found.exact_order == 1.0
    # Merits 1.5, 1.5, 0 and scores 2, 3, 1 as ranks: rho = sqrt(3) / 2. Two concordant
    # pairs; tau-b = 2 / sqrt(2 * 3).
    assert found.spearman == pytest.approx(sqrt(3) / 2)
    assert found.kendall_tau == pytest.approx(2 / sqrt(6))


def test_humans_who_tied_all_are_in_no_figure() -> None:
    found = of(((0, 0, 0), (5.0, 4.0, 1.0)))
    assert pairs(found) == (0, 0, 0, 0)
    assert (found.num_top_scored, found.five_best) == (0, None)
    assert (found.num_fully_scored, found.exact_order) == (0, None)
    assert (found.num_ranked_prompts, found.num_constant, found.spearman) == (0, 0, None)


def test_a_judge_who_ties_two_has_not_the_exact_order() -> None:
    found = of(((0, 1, 2), (4.0, 4.0, 1.0)))
    assert pairs(found) == (2, 0, 1, 0)
    assert (found.pairwise_accuracy, found.exact_order) == (2 / 3, 0.0)


def test_missing_scores_are_counted_and_judged_by_nobody() -> None:
    # Pairs with the second response are missing; (0, 2) agrees.
    found = of(((0, 1, 2), (5.0, None, 2.0)))
    assert (found.num_responses, found.num_scored) == (3, 2)
    assert pairs(found) == (1, 0, 0, 2)
    assert found.pairwise_accuracy == 1.0
    assert (found.num_fully_scored, found.exact_order) == (0, None)
    assert (found.num_ranked_prompts, found.spearman) == (1, pytest.approx(1.0))


def test_a_missing_score_is_not_a_zero() -> None:
    found = of(((0, 1), (None, 3.0)))
    assert pairs(found) == (0, 0, 0, 1)
    assert found.pairwise_accuracy is None


def test_a_single_scored_response_correlates_with_nothing() -> None:
    found = of(((0, 1, 2), (None, 5.0, None)))
    assert pairs(found) == (0, 0, 0, 3)
    assert (found.num_ranked_prompts, found.num_constant) == (0, 0)
    assert (found.spearman, found.kendall_tau) == (None, None)
    assert (found.num_top_scored, found.five_best) == (1, 0.0)


def test_constant_scores_are_left_out_and_counted() -> None:
    found = of(((0, 1), (3.0, 3.0)), ((0, 1), (1.0, 4.0)))
    assert (found.num_ranked_prompts, found.num_constant) == (1, 1)
    assert found.spearman == pytest.approx(-1.0)
    assert found.kendall_tau == pytest.approx(-1.0)


def test_responses_that_humans_tied_are_not_constant_scores() -> None:
    """The scored two are a human tie; the third would have put them in order."""
    found = of(((0, 0, 1), (3.0, 4.0, None)))
    assert (found.num_ranked_prompts, found.num_constant) == (0, 0)


@pytest.mark.parametrize(
    ("ranks", "scores", "five_best"),
    [
        ((0, 1), (5.0, 4.0), 1.0),
        ((1, 0), (5.0, 4.0), 0.0),
        ((0, 1), (4.0, 3.0), None),
        ((0, 1), (4.999, 4.0), None),
        ((0, 0, 1), (5.0, 5.0, 5.0), 2 / 3),
        ((3, 7), (5.0, 0.0), 1.0),
        # The best of all responses counts, not the best of those with a score.
        ((0, 1), (None, 5.0), 0.0),
    ],
)
def test_five_best_asks_where_the_fives_went(
    ranks: tuple[int, ...], scores: Scores, five_best: float | None
) -> None:
    assert of((ranks, scores)).five_best == five_best


def test_correlations_are_means_over_prompts_not_over_responses() -> None:
    four_right = ((0, 1, 2, 3), (4.0, 3.0, 2.0, 1.0))
    two_wrong = ((0, 1), (1.0, 2.0))
    found = of(four_right, two_wrong)
    assert found.spearman == pytest.approx(0.0)
    assert found.pairwise_accuracy == 6 / 7


def test_ranks_and_scores_must_pair_up() -> None:
    with pytest.raises(ValueError, match="2 ranks do not fit 1 scores"):
        JudgedRanking((0, 1), (3.0,))


def test_the_rank_correlation_needs_two_sides_that_vary() -> None:
    assert rank_correlation([], []) is None
    assert rank_correlation([1], [2]) is None
    assert rank_correlation([1, 2], [3, 3]) is None
    assert rank_correlation([3, 3], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)


def test_what_length_alone_would_say_of_the_same_pairs() -> None:
    """Prompt 1: best longest; pairs (0,1) right, (0,2) right, (1,2) tied; the better is the
    longer in all three. Prompt 2: (0,1) is right and its better one shorter, (0,2) has no
    score, (1,2) neither. Prompt 3: one length, and wrong."""
    found = agreement(
        [
            JudgedRanking((0, 1, 2), (4.0, 2.0, 2.0), (90, 60, 30)),
            JudgedRanking((0, 1, 2), (4.0, 2.0, None), (10, 20, 900)),
            JudgedRanking((1, 0), (5.0, 3.0), (50, 50)),
        ]
    )
    assert pairs(found) == (3, 1, 1, 2)
    assert (found.pairwise_accuracy, found.pairwise_accuracy_ties_half) == (3 / 5, 3.5 / 5)
    assert found.longer_is_better == 3.5 / 5
    assert (found.num_longer_better, found.num_shorter_better) == (3, 1)
    assert found.accuracy_longer_better == pytest.approx(2.5 / 3)
    assert found.accuracy_shorter_better == 1.0
    assert found.accuracy_balanced == pytest.approx((2.5 / 3 + 1) / 2)


def test_a_judge_of_length_alone_is_at_chance_when_balanced() -> None:
    lengths = [(30, 20, 10), (10, 30, 20), (20, 10, 30)]
    found = agreement(JudgedRanking((0, 1, 2), tuple(map(float, n)), n) for n in lengths)
    assert found.pairwise_accuracy == found.longer_is_better == 5 / 9
    assert found.accuracy_balanced == 0.5


def test_without_lengths_there_is_no_baseline() -> None:
    found = of(((0, 1), (4.0, 2.0)))
    assert (found.longer_is_better, found.accuracy_balanced) == (None, None)
    with pytest.raises(ValueError, match="2 ranks do not fit 1 lengths"):
        JudgedRanking((0, 1), (3.0, 2.0), (5,))


def test_the_pairs_needed_grow_with_how_much_a_prompts_pairs_depend_on_each_other() -> None:
    """Twelve prompts of one pair each, half of them right: independent, so that
    (1.959964 + 0.841621)^2 / 4 / 0.05^2 = 784.9 pairs are needed, but for the jackknife's
    n / (n - 1): 784.9 * 12 / 11 = 856.2. Three pairs a prompt that agree all or not at all
    say no more than one: 3 * 856.2 = 2568.7."""
    single = of(*[((0, 1), (4.0, 2.0)), ((0, 1), (2.0, 4.0))] * 6)
    assert single.design_effect == pytest.approx(12 / 11)
    assert (single.num_pairs_needed, single.num_prompts_needed) == (857, 857)
    right, wrong = (3.0, 2.0, 1.0), (1.0, 2.0, 3.0)
    triple = of(*[((0, 1, 2), right), ((0, 1, 2), wrong)] * 6)
    assert triple.design_effect == pytest.approx(36 / 11)
    assert (triple.num_pairs_needed, triple.num_prompts_needed) == (2569, 857)


def test_a_judge_that_ties_everything_or_few_prompts_tell_no_need() -> None:
    tied = of(*[((0, 1), (3.0, 3.0))] * 12)
    assert (tied.pairwise_accuracy, tied.pairwise_accuracy_ties_half) == (0.0, 0.5)
    few = of(*[((0, 1), (4.0, 2.0)), ((0, 1), (2.0, 4.0))] * 4)
    for found in (tied, few):
        assert (found.design_effect, found.num_pairs_needed, found.num_prompts_needed) == (
            *(None, None),
            None,
        )


def test_an_interval_is_over_the_prompts_that_have_a_say() -> None:
    """Eleven prompts with a pair, and one that humans tied: by hand, each a whole of its own,
    6 of 11 right, v = p (1 - p) / 10, so Wilson's for 10 answers with t(10) = 2.228139."""
    found = of(*[((0, 1), (4.0, 2.0))] * 6, *[((0, 1), (2.0, 4.0))] * 5, ((0, 0), (1.0, 2.0)))
    interval = found.intervals["pairwise_accuracy"]
    assert (interval.over, interval.num, interval.reason) == ("prompts", 11, None)
    p, square = 6 / 11, 2.228139**2 / 10
    middle, half = p + square / 2, sqrt(square * p * (1 - p) + square**2 / 4)
    ends = ((middle - half) / (1 + square), (middle + half) / (1 + square))
    assert (interval.low, interval.high) == pytest.approx(ends, abs=1e-6)
    assert found.intervals["five_best"].reason == "fewer than 10 prompts"


def test_what_an_older_version_stored_can_be_read() -> None:
    found = of(*[((0, 1), (4.0, 2.0))] * 12)
    whole = json.loads(json.dumps(asdict(found)))
    assert Agreement.from_metrics({**whole, "parse_rate": 1.0}) == found
    new = ("intervals", "accuracy_balanced", "longer_is_better", "num_longer_better")
    old = {key: value for key, value in whole.items() if key not in new}
    assert Agreement.from_metrics(old).pairwise_accuracy == 1.0
    assert Agreement.from_metrics(old).intervals == {}


def rankings() -> st.SearchStrategy[JudgedRanking]:
    score = st.none() | st.integers(0, 15).map(lambda thirds: thirds / 3)
    response = st.tuples(st.integers(0, 4), score)
    return st.lists(response, max_size=6).map(
        lambda both: JudgedRanking(tuple(r for r, _ in both), tuple(s for _, s in both))
    )


@given(rankings())
def test_one_prompt_correlates_as_scipy_says(ranking: JudgedRanking) -> None:
    found = agreement([ranking])
    scored = [(r, s) for r, s in zip(ranking.ranks, ranking.scores, strict=True) if s is not None]
    merits, scores = [-r for r, _ in scored], [s for _, s in scored]
    if len(set(merits)) < 2 or len(set(scores)) < 2:
        assert (found.spearman, found.kendall_tau) == (None, None)
    else:
        assert found.spearman == pytest.approx(spearmanr(scores, merits).statistic)
        assert found.kendall_tau == pytest.approx(kendalltau(scores, merits).statistic)


@given(st.lists(rankings(), max_size=6))
def test_every_pair_of_different_ranks_is_counted_once(prompts: list[JudgedRanking]) -> None:
    found = agreement(prompts)
    num_pairs = sum(a != b for p in prompts for a, b in combinations(p.ranks, 2))
    assert sum(pairs(found)) == num_pairs
    assert found.num_ranked_prompts + found.num_constant <= found.num_prompts == len(prompts)


@given(rankings())
def test_turning_the_scores_round_turns_the_pairs_round(ranking: JudgedRanking) -> None:
    turned = tuple(None if s is None else 5 - s for s in ranking.scores)
    found, opposite = agreement([ranking]), agreement([JudgedRanking(ranking.ranks, turned)])
    assert pairs(opposite)[:2] == pairs(found)[1::-1]
    assert pairs(opposite)[2:] == pairs(found)[2:]
