"""How far a judge's scores agree with human rankings. Pure.

The measures of Yuan et al., section 3.1: pairwise accuracy, 5-best, exact
order, Spearman's rho and Kendall's tau. Beside them what a reader needs to
believe them: ties as half, what "longer is better" reaches on the same pairs,
accuracy balanced by length, an interval over prompts (`intervals`), and how
many pairs it takes to see 5 points.

Shares and correlations lie in 0..1 and -1..1. Three invariants: a response
without a score is in no figure but the counts; two responses that humans tied
ask nothing of the judge; a figure that nothing defines is None, never 0 or NaN.

Knows nothing of texts but their lengths, nor of how a response's score came about. scipy.stats
takes a second or two to import and few processes compute anything here, so functions import it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import combinations
from math import ceil
from statistics import NormalDist, fmean, pvariance
from typing import Any, Self

from rewardloop.method import intervals
from rewardloop.method.intervals import Interval
from rewardloop.method.score_form import MAX_SCORE

VISIBLE_DIFFERENCE = 0.05
"""Points of pairwise accuracy that `num_pairs_needed` is about, as a share."""
POWER = 0.8


@dataclass(frozen=True, slots=True)
class JudgedRanking:
    """One prompt's responses, as humans ranked and as the judge scored them."""

    ranks: tuple[int, ...]
    """0 is the best; equal ranks are a human tie."""
    scores: tuple[float | None, ...]
    """The judge's `mean_score` of each response; None where too few judgements parsed."""
    lengths: tuple[int, ...] | None = None
    """Characters of each response; None where they are not known."""

    def __post_init__(self) -> None:
        if len(self.ranks) != len(self.scores):
            raise ValueError(f"{len(self.ranks)} ranks do not fit {len(self.scores)} scores")
        if self.lengths is not None and len(self.ranks) != len(self.lengths):
            raise ValueError(f"{len(self.ranks)} ranks do not fit {len(self.lengths)} lengths")


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge held against humans, over all prompts."""

    num_prompts: int
    num_responses: int
    num_scored: int
    """Responses with a score."""
    num_agreeing: int
    """Pairs of scored responses of one prompt and of different ranks, where the better
    one has the higher score."""
    num_reversed: int
    """The same, where it has the lower score."""
    num_tied: int
    """The same, where both have one score."""
    num_missing_pairs: int
    """Pairs of different ranks where at least one score is missing."""
    num_top_scored: int
    """Responses that the judge gave the highest score, in prompts that humans put in order."""
    num_fully_scored: int
    """Prompts that humans put in order, all of whose responses have a score."""
    num_ranked_prompts: int
    """Prompts that the correlations are the means over."""
    num_constant: int
    """Prompts left out of the correlations because all their scores are one: the judge
    sees no difference where humans do."""
    pairwise_accuracy: float | None
    """num_agreeing / (num_agreeing + num_reversed + num_tied)."""
    five_best: float | None
    """Of the num_top_scored, the share that humans ranked best (or joint best)."""
    exact_order: float | None
    """Of the num_fully_scored, the share whose scores fall wherever the human rank does."""
    spearman: float | None
    """Spearman's rho between score and human order, mean over prompts."""
    kendall_tau: float | None
    """Kendall's tau-b between score and human order, mean over prompts."""
    pairwise_accuracy_ties_half: float | None = None
    """(num_agreeing + num_tied / 2) / the same: 0.5 for a judge that sees no difference."""
    longer_is_better: float | None = None
    """What a judge reaches on the same pairs that takes the longer response for the better
    one; two of one length count as half."""
    num_longer_better: int = 0
    """Of the same pairs, those whose better response is the longer one."""
    num_shorter_better: int = 0
    accuracy_longer_better: float | None = None
    """`pairwise_accuracy_ties_half` of the num_longer_better alone."""
    accuracy_shorter_better: float | None = None
    accuracy_balanced: float | None = None
    """Mean of the two: 0.5 for every judge that goes by length alone."""
    design_effect: float | None = None
    """By how much more the accuracy varies than if its pairs were independent; at least 1."""
    num_pairs_needed: int | None = None
    """Pairs of such prompts that show an accuracy of 55 % to differ from 50 % in 80 of 100
    trials (two-sided test at 5 %)."""
    num_prompts_needed: int | None = None
    """Prompts with as many pairs each as these."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """By figure: its 95 % interval over prompts, or why it has none."""

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> Self:
        """From what is stored; figures that an older version did not compute are None."""
        known = {each.name for each in fields(cls)} - {"intervals"}
        found = {key: value for key, value in metrics.items() if key in known}
        stored = metrics.get("intervals") or {}
        return cls(**found, intervals={key: Interval(**value) for key, value in stored.items()})


class _Outcome(StrEnum):
    """What the judge says of two responses that humans ranked differently."""

    AGREES = "agrees"
    REVERSED = "reversed"
    TIED = "tied"
    MISSING = "missing"


_WORTH = {_Outcome.AGREES: 1.0, _Outcome.TIED: 0.5, _Outcome.REVERSED: 0.0}
_Scored = list[tuple[int, float]]
"""(human rank, score) of one prompt's scored responses."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two responses that humans ranked differently."""

    outcome: _Outcome
    is_longer: bool | None
    """Whether the better one is the longer; None where they are of one length, or unknown."""
    has_lengths: bool


_Counts = tuple[list[float], list[float]]
"""A share as (parts, wholes), one of each a prompt."""


def agreement(rankings: Iterable[JudgedRanking]) -> Agreement:
    """Hold a judge's scores against human rankings (Yuan et al., section 3.1).

    Shares are over all prompts' pairs or responses at once; correlations are
    taken within each prompt, over its scored responses, and averaged.
    """
    prompts = list(rankings)
    pairs = [list(_pairs(prompt)) for prompt in prompts]
    count = Counter(pair.outcome for each in pairs for pair in each)
    ordered = [scored for scored in map(_scored, prompts) if _num_values(scored, 0) > 1]
    varied = [scored for scored in ordered if _num_values(scored, 1) > 1]
    correlations = [_correlations(scored) for scored in varied]
    by_name = {
        "spearman": [rho for rho, _ in correlations],
        "kendall_tau": [tau for _, tau in correlations],
    }
    counts = _shares(prompts, pairs)
    by_length = counts["accuracy_longer_better"], counts["accuracy_shorter_better"]
    figures = {name: _share(*both) for name, both in counts.items()}
    return Agreement(
        num_prompts=len(prompts),
        num_responses=sum(len(prompt.ranks) for prompt in prompts),
        num_scored=sum(len(_scored(prompt)) for prompt in prompts),
        num_agreeing=count[_Outcome.AGREES],
        num_reversed=count[_Outcome.REVERSED],
        num_tied=count[_Outcome.TIED],
        num_missing_pairs=count[_Outcome.MISSING],
        num_top_scored=int(sum(counts["five_best"][1])),
        num_fully_scored=int(sum(counts["exact_order"][1])),
        num_ranked_prompts=len(varied),
        num_constant=len(ordered) - len(varied),
        num_longer_better=int(sum(by_length[0][1])),
        num_shorter_better=int(sum(by_length[1][1])),
        accuracy_balanced=_mean_of(figures, "accuracy_longer_better", "accuracy_shorter_better"),
        intervals={name: intervals.of_ratio(both) for name, both in counts.items()}
        | {"accuracy_balanced": intervals.of_ratio(*by_length)}
        | {"exact_order": intervals.of_share(*counts["exact_order"])}
        | {name: intervals.of_correlation(values) for name, values in by_name.items()},
        **figures,  # type: ignore[arg-type]
        **{name: fmean(values) if values else None for name, values in by_name.items()},  # type: ignore[arg-type]
        **_needed(counts["pairwise_accuracy_ties_half"], pairs),  # type: ignore[arg-type]
    )


def _shares(prompts: Sequence[JudgedRanking], pairs: Sequence[list[_Pair]]) -> dict[str, _Counts]:
    """Every share of `Agreement` that is over pairs, responses or prompts."""
    scored = [[pair for pair in each if pair.outcome in _WORTH] for each in pairs]
    is_longer = [[pair for pair in each if pair.is_longer is True] for each in scored]
    is_shorter = [[pair for pair in each if pair.is_longer is False] for each in scored]
    measured = [[pair for pair in each if pair.has_lengths] for each in scored]
    agreeing = [[pair.outcome is _Outcome.AGREES for pair in each] for each in scored]
    # A response without a score is in some pair of each prompt that has any.
    complete = [bool(a) and a == b for a, b in zip(pairs, scored, strict=True)]
    exact = [[all(each)] if done else [] for each, done in zip(agreeing, complete, strict=True)]
    return {
        "pairwise_accuracy": _counted(agreeing),
        "pairwise_accuracy_ties_half": _counted(map(_worths, scored)),
        "longer_is_better": _counted(map(_as_length_says, measured)),
        "accuracy_longer_better": _counted(map(_worths, is_longer)),
        "accuracy_shorter_better": _counted(map(_worths, is_shorter)),
        "five_best": _counted(map(_top_scored, prompts)),
        "exact_order": _counted(exact),
    }


def _counted(values: Iterable[Sequence[float]]) -> _Counts:
    """Each prompt's sum and number of values."""
    each = list(values)
    return [float(sum(one)) for one in each], [float(len(one)) for one in each]


def _worths(pairs: Iterable[_Pair]) -> list[float]:
    return [_WORTH[pair.outcome] for pair in pairs]


def _as_length_says(pairs: Iterable[_Pair]) -> list[float]:
    return [0.5 if pair.is_longer is None else float(pair.is_longer) for pair in pairs]


def _needed(counts: _Counts, pairs: Sequence[list[_Pair]]) -> dict[str, float | int | None]:
    """How many pairs, and prompts like these, it takes to see `VISIBLE_DIFFERENCE`.

    n = (z_0.975 + z_0.8)^2 / 4 / 0.05^2 independent pairs (785), times the design effect:
    the variance over prompts of the accuracy, ties as half, over what it would be if each
    pair were a draw of its own. Pairs of one response, or of one prompt, are not.
    """
    worths = [w for each in pairs for w in _worths(p for p in each if p.outcome in _WORTH)]
    num_prompts = sum(whole > 0 for whole in counts[1])
    spread = pvariance(worths) if worths else 0.0
    if num_prompts < intervals.MIN_PROMPTS or not spread:
        return {"design_effect": None, "num_pairs_needed": None, "num_prompts_needed": None}
    effect = max(1.0, intervals.ratio_variance(*counts) * len(worths) / spread)
    z = NormalDist().inv_cdf((1 + intervals.CONFIDENCE) / 2) + NormalDist().inv_cdf(POWER)
    needed = z**2 / 4 / VISIBLE_DIFFERENCE**2 * effect
    return {
        "design_effect": effect,
        "num_pairs_needed": ceil(needed),
        "num_prompts_needed": ceil(needed * num_prompts / len(worths)),
    }


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rho, -1 to 1; None where either side does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def _pairs(prompt: JudgedRanking) -> Iterator[_Pair]:
    """One per pair of different ranks."""
    lengths = prompt.lengths or (0,) * len(prompt.ranks)
    responses = zip(prompt.ranks, prompt.scores, lengths, strict=True)
    best_first = sorted(responses, key=lambda item: item[0])
    for (rank, better, length), (other_rank, worse, other_length) in combinations(best_first, 2):
        if rank != other_rank:
            is_longer = None if length == other_length else length > other_length
            yield _Pair(_outcome(better, worse), is_longer, prompt.lengths is not None)


def _outcome(better: float | None, worse: float | None) -> _Outcome:
    if better is None or worse is None:
        return _Outcome.MISSING
    if better == worse:
        return _Outcome.TIED
    return _Outcome.AGREES if better > worse else _Outcome.REVERSED


def _top_scored(prompt: JudgedRanking) -> list[bool]:
    """Whether each response with the highest score is the humans' best.

    Where humans tied all responses, each is the best and it tells nothing.
    """
    if len(set(prompt.ranks)) < 2:
        return []
    best = min(prompt.ranks)
    return [rank == best for rank, score in _scored(prompt) if score == MAX_SCORE]


def _scored(prompt: JudgedRanking) -> _Scored:
    both = zip(prompt.ranks, prompt.scores, strict=True)
    return [(rank, score) for rank, score in both if score is not None]


def _num_values(scored: _Scored, side: int) -> int:
    return len({item[side] for item in scored})


def _correlations(scored: _Scored) -> tuple[float, float]:
    """Spearman's rho and Kendall's tau-b; both sides of `scored` vary."""
    from scipy.stats import kendalltau

    merits, scores = [-rank for rank, _ in scored], [score for _, score in scored]
    rho = rank_correlation(merits, scores)
    assert rho is not None
    return rho, float(kendalltau(merits, scores, variant="b").statistic)


def _share(parts: Sequence[float], wholes: Sequence[float]) -> float | None:
    whole = sum(wholes)
    return sum(parts) / whole if whole else None


def _mean_of(figures: Mapping[str, float | None], *names: str) -> float | None:
    known = [value for name in names if (value := figures[name]) is not None]
    return fmean(known) if len(known) == len(names) else None
