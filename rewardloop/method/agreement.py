"""How far a judge's scores agree with human rankings. Pure.

The measures of Yuan et al., section 3.1: pairwise accuracy, 5-best, exact
order, Spearman's rho and Kendall's tau. Shares and correlations lie in 0..1
and -1..1. Three invariants: a response without a score is in no figure but
the counts; two responses that humans tied ask nothing of the judge; a figure
that nothing defines is None, never 0 or NaN.

Knows nothing of texts, nor of how a response's score came about. scipy.stats takes a second
or two to import and few processes compute anything here, so functions import it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from statistics import fmean

from rewardloop.method.rubric import MAX_SCORE


@dataclass(frozen=True, slots=True)
class JudgedRanking:
    """One prompt's responses, as humans ranked and as the judge scored them."""

    ranks: tuple[int, ...]
    """0 is the best; equal ranks are a human tie."""
    scores: tuple[float | None, ...]
    """The judge's `mean_score` of each response; None where no judgement parsed."""

    def __post_init__(self) -> None:
        if len(self.ranks) != len(self.scores):
            raise ValueError(f"{len(self.ranks)} ranks do not fit {len(self.scores)} scores")


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


class _Outcome(StrEnum):
    """What the judge says of two responses that humans ranked differently."""

    AGREES = "agrees"
    REVERSED = "reversed"
    TIED = "tied"
    MISSING = "missing"


_Scored = list[tuple[int, float]]
"""(human rank, score) of one prompt's scored responses."""


def agreement(rankings: Iterable[JudgedRanking]) -> Agreement:
    """Hold a judge's scores against human rankings (Yuan et al., section 3.1).

    Shares are over all prompts' pairs or responses at once; correlations are
    taken within each prompt, over its scored responses, and averaged.
    """
    prompts = list(rankings)
    outcomes = [list(_outcomes(prompt)) for prompt in prompts]
    pairs = Counter(outcome for each in outcomes for outcome in each)
    # A response without a score is in some pair of each prompt that has any.
    complete = [each for each in outcomes if each and _Outcome.MISSING not in each]
    top_is_best = [is_best for prompt in prompts for is_best in _top_scored(prompt)]
    ordered = [scored for scored in map(_scored, prompts) if _num_values(scored, 0) > 1]
    varied = [scored for scored in ordered if _num_values(scored, 1) > 1]
    correlations = [_correlations(scored) for scored in varied]
    return Agreement(
        num_prompts=len(prompts),
        num_responses=sum(len(prompt.ranks) for prompt in prompts),
        num_scored=sum(len(_scored(prompt)) for prompt in prompts),
        num_agreeing=pairs[_Outcome.AGREES],
        num_reversed=pairs[_Outcome.REVERSED],
        num_tied=pairs[_Outcome.TIED],
        num_missing_pairs=pairs[_Outcome.MISSING],
        num_top_scored=len(top_is_best),
        num_fully_scored=len(complete),
        num_ranked_prompts=len(varied),
        num_constant=len(ordered) - len(varied),
        pairwise_accuracy=_share(pairs[_Outcome.AGREES], pairs.total() - pairs[_Outcome.MISSING]),
        five_best=_share(sum(top_is_best), len(top_is_best)),
        exact_order=_share(sum(set(each) == {_Outcome.AGREES} for each in complete), len(complete)),
        spearman=fmean(rho for rho, _ in correlations) if correlations else None,
        kendall_tau=fmean(tau for _, tau in correlations) if correlations else None,
    )


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rho, -1 to 1; None where either side does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def _outcomes(prompt: JudgedRanking) -> Iterator[_Outcome]:
    """One per pair of different ranks."""
    best_first = sorted(zip(prompt.ranks, prompt.scores, strict=True), key=lambda item: item[0])
    for (rank, better), (other_rank, worse) in combinations(best_first, 2):
        if rank == other_rank:
            continue
        if better is None or worse is None:
            yield _Outcome.MISSING
        elif better == worse:
            yield _Outcome.TIED
        else:
            yield _Outcome.AGREES if better > worse else _Outcome.REVERSED


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


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
