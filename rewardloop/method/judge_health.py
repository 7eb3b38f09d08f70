"""Is the judge still worth training on? Pure.

A judge collapses when it gives everything the same score, the highest score,
or no score at all, when it rates length, or when it stops agreeing with
humans. `score_health` measures an iteration's judgements, `beside_humans` adds
how much humans go by length themselves, `collapse` holds the figures against
the config's limits. A figure that nothing defines is None, and trips no limit;
unparsed judgements are a rate of their own, never a score. Scores by expectation
are no whole points: the highest are those that round to it, and means that are
closer than TIE_POINTS tie.

Knows nothing of prompts' texts nor of the store; what to do about a collapse
is the caller's.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log2
from statistics import fmean, stdev

from rewardloop.config import Health
from rewardloop.method.agreement import Agreement, rank_correlation
from rewardloop.method.score_form import MAX_SCORE
from rewardloop.records import ScoredResponse

TIE_POINTS = 0.01
"""Less than two different means of 32 judgements in whole or half points can lie apart (1/64);
more than the noise of an engine's arithmetic."""
_BETTER_JUDGE = "start from a base_version that judges better, or train it on more EFT examples"
_WORDS = {
    "max_unparsed_rate": (
        "share of judgements without a score",
        "read a few of them; raise judging.max_tokens where they are cut off, or set "
        "judging.mode to constrained",
    ),
    "max_top_score_share": (
        f"share of scores that are {MAX_SCORE}, or round to it",
        f"the judge hardly criticises any more; {_BETTER_JUDGE}",
    ),
    "max_tie_rate": (
        "share of prompts whose responses all have one mean score",
        "they give no pairs; raise sampling.temperature, or judging.num_judgements where "
        "judging.mode is not expected",
    ),
    "max_length_correlation": (
        "difference between how the judge's scores and how human ranks correlate with length "
        "(humans count as 0 where the run has no rankings)",
        "length seems to be what is rewarded; read a few judgements, and where longer responses "
        "score higher set pairing.policy.kind to length_control",
    ),
    "min_pairwise_accuracy": ("share of pairs that the judge orders as humans did", _BETTER_JUDGE),
    "min_spearman": ("Spearman correlation with the human order", _BETTER_JUDGE),
}
"""By key of `Health`: what the figure is, and what mends it."""


@dataclass(frozen=True, slots=True)
class ScoreHealth:
    """What one iteration's scores look like."""

    num_judgements: int
    num_scored: int
    """Judgements with a score."""
    unparsed_rate: float
    """Judgements without a score / judgements; 1 where there is no judgement at all."""
    top_score_share: float | None
    """Single scores that round to the highest of the scale / single scores."""
    mean_score: float | None
    """Of the single scores, 0 to 5."""
    entropy_bits: float | None
    """Shannon entropy of the single scores' histogram over whole points; 0 where all are
    the same, at most log2(6) = 2.58."""
    tie_rate: float | None
    """Prompts whose scored responses all have one mean, to TIE_POINTS / prompts with at least
    two of them."""
    judge_spread: float | None
    """Points by which judgements of one response differ: their sample standard deviation
    (n - 1), mean over responses with at least two scores; None by expectation, which has one."""
    length_correlation: float | None
    """Spearman's rho between a response's characters and its mean score, mean over the
    prompts where both vary."""
    human_length_correlation: float | None = None
    """The same of humans: between a ranked response's characters and how good humans found
    it, mean over the run's ranked prompts; None where it has none."""
    num_human_prompts: int = 0
    """Prompts that it is the mean over."""
    length_excess: float | None = None
    """|length_correlation - human_length_correlation|, with 0 for humans where it is None.
    0 is a judge that goes by length as much as humans do; at most 2."""


def score_health(prompts: Iterable[Sequence[ScoredResponse]]) -> ScoreHealth:
    """Measure the judgements of an iteration, given each prompt's responses."""
    groups = list(prompts)
    responses = [response for group in groups for response in group]
    parsed = [_parsed(response) for response in responses]
    scores = [score for each in parsed for score in each]
    num_judgements = sum(len(response.scores) for response in responses)
    ties = [_tied(means) for means in map(_means, groups) if len(means) > 1]
    length_rho = _mean([rho for rho in map(_length_rho, groups) if rho is not None])
    return ScoreHealth(
        num_judgements=num_judgements,
        num_scored=len(scores),
        unparsed_rate=_unparsed_rate(num_judgements, len(scores)),
        top_score_share=_mean([score > MAX_SCORE - 0.5 for score in scores]),
        mean_score=_mean(scores),
        entropy_bits=_entropy_bits(scores) if scores else None,
        tie_rate=_mean(ties),
        judge_spread=_mean([stdev(each) for each in parsed if len(each) > 1]),
        length_correlation=length_rho,
        length_excess=None if length_rho is None else abs(length_rho),
    )


def beside_humans(
    health: ScoreHealth, rankings: Iterable[tuple[Sequence[int], Sequence[int]]]
) -> ScoreHealth:
    """The same, held against (ranks, lengths in characters) of each human-ranked prompt.

    Humans like length too, and a judge that agrees with them must: what counts is by how
    much its taste for length differs from theirs. The two are measured on different
    responses, those of the roll-out and those that were ranked.
    """
    found = [rank_correlation([-rank for rank in ranks], lengths) for ranks, lengths in rankings]
    known = [rho for rho in found if rho is not None]
    judge, humans = health.length_correlation, _mean(known)
    return replace(
        health,
        human_length_correlation=humans,
        num_human_prompts=len(known),
        length_excess=None if judge is None else abs(judge - (humans or 0.0)),
    )


def collapse(health: ScoreHealth, agreement: Agreement | None, limits: Health) -> list[str]:
    """One sentence per limit that is passed; none where the judge is fit to train on.

    A figure equal to its limit is within it.
    """
    accuracy = agreement.pairwise_accuracy if agreement else None
    spearman = agreement.spearman if agreement else None
    checks = [
        _above("max_unparsed_rate", health.unparsed_rate, limits.max_unparsed_rate),
        _above("max_top_score_share", health.top_score_share, limits.max_top_score_share),
        _above("max_tie_rate", health.tie_rate, limits.max_tie_rate),
        _above(
            "max_length_correlation",
            health.length_excess,
            limits.max_length_correlation,
        ),
        _below("min_pairwise_accuracy", accuracy, limits.min_pairwise_accuracy),
        _below("min_spearman", spearman, limits.min_spearman),
    ]
    return [sentence for sentence in checks if sentence is not None]


def _above(key: str, figure: float | None, limit: float | None) -> str | None:
    if figure is None or limit is None or figure <= limit:
        return None
    return _sentence(key, figure, f"above health.{key} = {limit:g}")


def _below(key: str, figure: float | None, limit: float | None) -> str | None:
    if figure is None or limit is None or figure >= limit:
        return None
    return _sentence(key, figure, f"below health.{key} = {limit:g}")


def _sentence(key: str, figure: float, limit: str) -> str:
    what, mend = _WORDS[key]
    return f"The {what} is {figure:.4g}, {limit}: {mend}."


def _unparsed_rate(num_judgements: int, num_scored: int) -> float:
    return (num_judgements - num_scored) / num_judgements if num_judgements else 1.0


def _parsed(response: ScoredResponse) -> list[float]:
    return [score for score in response.scores if score is not None]


def _means(group: Sequence[ScoredResponse]) -> list[float]:
    return [response.score for response in group if response.score is not None]


def _tied(means: Sequence[float]) -> bool:
    return max(means) - min(means) < TIE_POINTS


def _entropy_bits(scores: Sequence[float]) -> float:
    """H = sum over whole points s of p_s log2(1 / p_s), in bits."""
    histogram = Counter(map(round, scores))
    return sum(num / len(scores) * log2(len(scores) / num) for num in histogram.values())


def _length_rho(group: Sequence[ScoredResponse]) -> float | None:
    lengths = [len(response.text) for response in group if response.score is not None]
    return rank_correlation(lengths, _means(group))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
