"""Intervals: by hand, and what they cover in 2,000 simulated experiments a case."""

from math import log, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from benchmarks.simulated_judges import NUM_EXPERIMENTS, Judges, Prompts, covered, judged
from rewardloop.method import intervals
from rewardloop.method.intervals import MIN_PROMPTS, correlation, paired, ratio

MOST_PROMPTS = 60

CLAIMED = pytest.approx(0.95, abs=0.02)
JUDGES = (
    Judges(taste=0.0),
    Judges(taste=0.5, by_length=0.5, unparsed=0.01),
    Judges(taste=1.5, unparsed=0.1),
    Judges(taste=0.3, by_length=-0.5, unparsed=0.3),
)
"""A judge without taste, one that likes length, a good one, and one that often fails to
write a score and likes short answers: pairwise accuracy 46 to 76 %."""


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_over_seeds_student_covers_95_in_100(num_seeds: int) -> None:
    gains = np.random.default_rng(num_seeds).normal(0.7, 0.4, (NUM_EXPERIMENTS, num_seeds))
    assert covered(*intervals.student(gains), 0.7) == CLAIMED


def test_students_interval_by_hand() -> None:
    """Mean 2, s = 1, t(2) = 4.302653: 2 -+ 4.302653 / sqrt(3)."""
    assert intervals.student([1.0, 2.0, 3.0]) == pytest.approx((-0.484138, 4.484138), abs=1e-6)


@pytest.mark.parametrize("num_prompts", [15, 20, 60, 256])
def test_a_share_of_prompts_is_covered_95_times_in_100(num_prompts: int) -> None:
    random = np.random.default_rng(num_prompts)
    truth = random.random(NUM_EXPERIMENTS)
    low, high = intervals.wilson(random.binomial(num_prompts, truth), num_prompts)
    assert covered(low, high, truth) == CLAIMED


def test_wilsons_interval_by_hand() -> None:
    """z^2 = 3.841459: (0.5 + 0.192073 -+ 1.959964 sqrt(0.025 + 0.00960365)) / 1.3841459."""
    assert intervals.wilson(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    # Of 142 of 256: (0.5546875 + 0.00750285 -+ 1.959964 sqrt(0.0009648800 + 0.0000146540))
    # / 1.0150057, where p (1 - p) / n = 0.5546875 * 0.4453125 / 256.
    assert intervals.wilson(142, 256) == pytest.approx((0.493444, 0.614314), abs=1e-6)
    assert intervals.wilson(0, 10) == pytest.approx((0, 3.841459 / 13.841459), abs=1e-6)


@pytest.mark.parametrize("num_prompts", [20, 64, 256])
@pytest.mark.parametrize("tie_rates", [(0.0, 0.1), (0.1, 0.5), (0.5, 0.85)])
def test_wins_less_losses_are_covered_95_times_in_100(
    num_prompts: int, tie_rates: tuple[float, float]
) -> None:
    assert _paired_coverage(num_prompts, *tie_rates) == CLAIMED


@pytest.mark.parametrize(
    ("num_prompts", "least"), [(10, 0.95), (20, 0.95), (24, 0.95), (64, 0.94), (256, 0.94)]
)
def test_where_nearly_all_tie_the_interval_covers_more_and_never_less(
    num_prompts: int, least: float
) -> None:
    """20 prompts of which 19 tie tell too little for 95 in 100: what is likely must be held."""
    assert least <= _paired_coverage(num_prompts, 0.9, 1.0) <= 1


def _paired_coverage(num_prompts: int, least_ties: float, most_ties: float) -> float:
    random = np.random.default_rng(num_prompts)
    decided = 1 - random.uniform(least_ties, most_ties, NUM_EXPERIMENTS)
    win_rate = decided * random.random(NUM_EXPERIMENTS)
    rates = np.stack([win_rate, decided - win_rate, 1 - decided], axis=-1)
    drawn = random.multinomial(num_prompts, rates)
    low, high = paired(drawn[:, 0], drawn[:, 1], num_prompts)
    return covered(low, high, 2 * win_rate - decided)


def test_tangos_interval_by_hand() -> None:
    """All tie: q = 0 given d > 0, so n d = z sqrt(n d (1 - d)) and d = z^2 / (n + z^2). All
    won: q = (1 - d) / 2, so n (1 - d) = z sqrt(n (1 - d^2)) and d = (n - z^2) / (n + z^2)."""
    square = 3.841459
    ties, wins = square / (24 + square), (24 - square) / (24 + square)
    assert paired(0, 0, 24) == pytest.approx((-ties, ties))
    assert paired(24, 0, 24) == pytest.approx((wins, 1))
    assert paired(0, 24, 24) == pytest.approx((-1, -wins))


@pytest.mark.parametrize("counts", [(10, 2, 24), (1, 0, 20), (30, 34, 64), (142, 30, 256)])
def test_an_end_is_where_the_score_test_refuses(counts: tuple[int, int, int]) -> None:
    """The likeliest loss rate given the difference is looked for, not computed as Tango does."""
    wins, losses, num = counts
    for end, z in zip(paired(*counts), (1.959964, -1.959964), strict=True):
        d = float(end)

        def unlikelihood(q: float, d: float = d) -> float:
            ties = 1 - 2 * q - d
            return -(wins * log(q + d) + losses * log(q) + (num - wins - losses) * log(ties))

        bounds = max(1e-12, 1e-12 - d), (1 - d) / 2 - 1e-12
        q = minimize_scalar(unlikelihood, bounds=bounds, options={"xatol": 1e-10}).x
        score = (wins - losses - num * d) / sqrt(num * (2 * q + d * (1 - d)))
        assert score == pytest.approx(z, abs=1e-3)


@pytest.fixture(scope="module", params=range(len(JUDGES)))
def experiments(request: pytest.FixtureRequest) -> Prompts:
    random = np.random.default_rng(request.param)
    found = judged(random, NUM_EXPERIMENTS * MOST_PROMPTS, JUDGES[request.param])
    return found.shaped(NUM_EXPERIMENTS, MOST_PROMPTS)


SHARES = ("pairwise_accuracy", "pairwise_accuracy_ties_half", "longer_is_better")


@pytest.mark.parametrize("num_prompts", [15, 30, MOST_PROMPTS])
def test_agreement_is_covered_95_times_in_100(experiments: Prompts, num_prompts: int) -> None:
    found = experiments.first(num_prompts)
    coverage = {
        name: covered(*ratio(found.shares[name]), mean_of(experiments.shares[name]))
        for name in SHARES
    }
    for name, values in found.correlations.items():
        truth = mean_of((experiments.correlations[name], experiments.varies))
        coverage[name] = covered(*correlation(values, found.varies), truth)
    by_length = ("accuracy_longer_better", "accuracy_shorter_better")
    balanced = np.mean([mean_of(experiments.shares[name]) for name in by_length])
    shown = np.min([(found.shares[n][1] > 0).sum(-1) for n in by_length], axis=0) >= MIN_PROMPTS
    ends = ratio(*(tuple(side[shown] for side in found.shares[name]) for name in by_length))
    coverage["accuracy_balanced"] = covered(*ends, balanced)
    assert coverage == dict.fromkeys(coverage, CLAIMED)


@pytest.mark.parametrize("num_prompts", [15, 30, MOST_PROMPTS])
def test_rare_things_are_covered_95_times_in_100_at_least(
    experiments: Prompts, num_prompts: int
) -> None:
    """Judgements without a score, fives and exact orders: few in few prompts, so that no
    interval can cover exactly 95."""
    found = experiments.first(num_prompts)
    for name in ("parse_rate", "five_best"):
        parts, wholes = found.shares[name]
        shown = (wholes > 0).sum(-1) >= MIN_PROMPTS
        if shown.sum() < NUM_EXPERIMENTS / 10:
            continue
        ends = ratio((parts[shown], wholes[shown]))
        assert covered(*ends, mean_of(experiments.shares[name])) >= 0.93, name


def mean_of(share: Any) -> float:
    """The truth, from all experiments together: its own error is 1 / sqrt(2,000) of one's."""
    parts, wholes = share
    return float(parts.sum() / wholes.sum())
