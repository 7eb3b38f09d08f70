"""Simulated experiments of the sizes that the product uses, to see what intervals cover.

Every experiment draws its own truth from the range that occurs, since a share of a few
discrete outcomes is covered more often at one truth and less at the next.
Suffixes: E experiments, P prompts, R responses of a prompt, C their pairs, J judgements of a
response.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NUM_EXPERIMENTS = 2_000
MAX_RESPONSES = 6
NUM_JUDGEMENTS = 3


def covered(low: Any, high: Any, truth: Any) -> float:
    """The part of the experiments whose interval holds the truth."""
    return float(np.mean((low <= truth + 1e-9) & (truth <= high + 1e-9)))


@dataclass(frozen=True)
class Judges:
    """How a kind of judge scores: latent score = taste * merit + by_length * length + noise."""

    taste: float
    by_length: float = 0.0
    unparsed: float = 0.03


@dataclass(frozen=True)
class Prompts:
    """Judged prompts: per prompt sums of what `Agreement` counts."""

    shares: dict[str, tuple[Any, Any]]
    """(parts, wholes), each of shape (..., P)."""
    correlations: dict[str, Any]
    """Spearman's rho and Kendall's tau-b of each prompt, of shape (..., P)."""
    varies: Any
    """1 where a prompt has correlations, else 0."""

    def shaped(self, *shape: int) -> "Prompts":
        return self._with(lambda values: values.reshape(shape))

    def first(self, num_prompts: int) -> "Prompts":
        """Of every experiment."""
        return self._with(lambda values: values[:, :num_prompts])

    def _with(self, change: Callable[[Any], Any]) -> "Prompts":
        shares = {name: (change(a), change(b)) for name, (a, b) in self.shares.items()}
        correlations = {name: change(values) for name, values in self.correlations.items()}
        return Prompts(shares, correlations, change(self.varies))


def judged(random: Any, num_prompts: int, judges: Judges) -> Prompts:
    """Prompts of 2 to 6 responses with distinct human ranks, judged three times each.

    Humans like length somewhat (correlation 0.37); judges differ in taste from prompt to
    prompt, and some prompts are harder to judge in form than others.
    """
    exists_PR = np.arange(MAX_RESPONSES) < random.integers(2, MAX_RESPONSES + 1, (num_prompts, 1))
    length_PR = random.normal(size=exists_PR.shape)
    merit_PR = random.normal(size=exists_PR.shape) + 0.4 * length_PR
    taste_P1 = judges.taste + random.normal(0, 0.5, size=(num_prompts, 1))
    latent_PR = taste_P1 * merit_PR + judges.by_length * length_PR
    latent_PR += random.normal(size=exists_PR.shape)
    noise_PRJ = random.normal(0, 0.8, (*exists_PR.shape, NUM_JUDGEMENTS))
    points_PRJ = np.clip(np.round(latent_PR[..., None] + noise_PRJ + 3), 0, 5)
    rate_P11 = np.minimum(1, judges.unparsed * random.exponential(size=(num_prompts, 1, 1)))
    parsed_PRJ = (random.random(points_PRJ.shape) > rate_P11) & exists_PR[..., None]
    num_PR = parsed_PRJ.sum(-1)
    score_PR = (points_PRJ * parsed_PRJ).sum(-1) / np.maximum(num_PR, 1)
    return _counted(merit_PR, length_PR, score_PR, exists_PR, num_PR)


def _counted(merit_PR: Any, length_PR: Any, score_PR: Any, exists_PR: Any, num_PR: Any) -> Prompts:
    scored_PR = num_PR > 0
    first, second = np.triu_indices(MAX_RESPONSES, 1)
    way = np.sign(merit_PR[:, first] - merit_PR[:, second])
    counts = (scored_PR[:, first] & scored_PR[:, second]).astype(float)
    gap = (score_PR[:, first] - score_PR[:, second]) * way
    right, tied = (gap > 1e-9) * counts, (np.abs(gap) <= 1e-9) * counts
    worth = right + tied / 2
    longer = ((length_PR[:, first] - length_PR[:, second]) * way > 0) * counts
    shorter = counts - longer
    top_PR = scored_PR & (score_PR == 5)
    best_PR = merit_PR == np.where(exists_PR, merit_PR, -np.inf).max(-1, keepdims=True)
    whole_P = (scored_PR | ~exists_PR).all(-1).astype(float)
    by_judge = (2 * right + tied - counts) * way
    rho_P, varies_P = _rank_correlation(counts * way, by_judge, first, second)
    # Tau-b where only one side has ties: (right - wrong) / sqrt(pairs (pairs - tied)).
    num_P, tied_P = counts.sum(-1), tied.sum(-1)
    tau_P = (2 * right.sum(-1) + tied_P - num_P) / np.sqrt(np.maximum(num_P * (num_P - tied_P), 1))
    shares = {
        "parse_rate": (num_PR.sum(-1), NUM_JUDGEMENTS * exists_PR.sum(-1)),
        "pairwise_accuracy": (right.sum(-1), counts.sum(-1)),
        "pairwise_accuracy_ties_half": (worth.sum(-1), counts.sum(-1)),
        "longer_is_better": (longer.sum(-1), counts.sum(-1)),
        "accuracy_longer_better": ((worth * longer).sum(-1), longer.sum(-1)),
        "accuracy_shorter_better": ((worth * shorter).sum(-1), shorter.sum(-1)),
        "five_best": ((top_PR & best_PR).sum(-1), top_PR.sum(-1)),
        "exact_order": ((right == counts).all(-1) * whole_P, whole_P),
    }
    shares = {n: (np.asarray(a, float), np.asarray(b, float)) for n, (a, b) in shares.items()}
    return Prompts(shares, {"spearman": rho_P, "kendall_tau": tau_P * varies_P}, varies_P)


def _rank_correlation(x_PC: Any, y_PC: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Spearman's rho within each prompt, and whether both sides vary.

    From how each side orders the pairs C (1, 0 or -1): half the sum of a response's signs is
    its rank less the mean rank, where ties share theirs.
    """
    responses = np.arange(MAX_RESPONSES)
    sign_CR = (first[:, None] == responses) * 0.5 - (second[:, None] == responses) * 0.5
    x, y = x_PC @ sign_CR, y_PC @ sign_CR
    size = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    varies = size > 1e-9
    return (x * y).sum(-1) / np.where(varies, size, 1) * varies, varies.astype(float)
