"""Scored responses to preference pairs. Pure.

Every policy works on stored scores alone, so policies can be compared on one
roll-out. Invariants: a response without a parsed score is never a side; the
chosen mean is above the rejected one by more than `min_margin`; the result does
not depend on the order of the input; a prompt without a pair says why. Knows
neither where scores come from nor how they are trained on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, zip_longest
from statistics import fmean

from rewardloop.config import (
    Anchored,
    BestWorst,
    Consistency,
    LengthControl,
    Pairing,
    PairPolicy,
    SeveralPairs,
)
from rewardloop.records import MARGIN_DECIMALS, SCORE_DECIMALS, PreferencePair, ScoredResponse


class Unpaired(StrEnum):
    """Why a prompt gave no pair."""

    TOO_FEW_SCORED = "too_few_scored"
    """There are no two responses with a score to choose from."""
    TIED = "tied"
    """All means that the policy may choose from are equal."""
    BELOW_MARGIN = "below_margin"
    """The best that the policy can do is not above `min_margin`."""
    NO_ANCHOR = "no_anchor"
    """Anchored: the run's first model has no scored answer to this prompt."""


@dataclass(frozen=True, slots=True)
class PairedPrompt:
    """What one prompt's responses gave."""

    pairs: tuple[PreferencePair, ...]
    """Widest margin first."""
    unpaired: Unpaired | None

    def __post_init__(self) -> None:
        assert bool(self.pairs) == (self.unpaired is None)


def pair(
    responses: Iterable[ScoredResponse],
    config: Pairing,
    anchors: Sequence[ScoredResponse] = (),
) -> PairedPrompt:
    """The pairs of one prompt's responses. Among equals the lower response id is taken.

    `anchors` are the answers of the run's first model to the same prompt, with their stored
    scores; in the first iteration the responses themselves. Only `Anchored` reads them.
    """
    policy = config.policy
    scored = _with_score(responses)
    rejectable = _with_score(anchors) if isinstance(policy, Anchored) else scored
    if (missing := _missing(scored, rejectable)) is not None:
        return PairedPrompt((), missing)
    candidates = _candidates(policy, scored, rejectable)
    apart = [c for c in candidates if c.margin > round(config.min_margin, MARGIN_DECIMALS)]
    if not apart:
        tied = all(c.margin == 0 for c in candidates)
        return PairedPrompt((), Unpaired.TIED if tied else Unpaired.BELOW_MARGIN)
    max_pairs = policy.max_pairs_per_prompt if isinstance(policy, SeveralPairs) else 1
    return PairedPrompt(tuple(apart[:max_pairs]), None)


def _with_score(responses: Iterable[ScoredResponse]) -> list[ScoredResponse]:
    """By response id, so that the first among equals is the one with the lower id."""
    return sorted((r for r in responses if r.score is not None), key=lambda r: r.response_id)


def _missing(scored: list[ScoredResponse], rejectable: list[ScoredResponse]) -> Unpaired | None:
    if not scored:
        return Unpaired.TOO_FEW_SCORED
    if not rejectable:
        return Unpaired.NO_ANCHOR
    one_alone = len({r.response_id for r in (*scored, *rejectable)}) == 1
    return Unpaired.TOO_FEW_SCORED if one_alone else None


def _candidates(
    policy: PairPolicy, scored: list[ScoredResponse], rejectable: list[ScoredResponse]
) -> list[PreferencePair]:
    """What the policy would pair, widest first, whatever the margin."""
    match policy:
        case LengthControl(rho=rho):
            return [_length_controlled(scored, rho)]
        case SeveralPairs():
            return _by_margin(scored)
        case BestWorst() | Consistency() | Anchored():
            return [PreferencePair(max(scored, key=_score), min(rejectable, key=_score))]


def _length_controlled(scored: list[ScoredResponse], rho: float) -> PreferencePair:
    """The shortest response near the top against the longest near the bottom.

    Meta-Rewarding, arXiv 2407.19594, section 2.2, with S_max and S_min the highest and the
    lowest mean of the prompt, and lengths in characters:

        chosen   = shortest with S >= (1 - rho) S_max + rho S_min
        rejected = longest  with S <= (1 - rho) S_min + rho S_max

    The bounds are rounded as means are: 0.8 * 4 + 0.2 * 1 is computed as 3.4000000000000004,
    and a mean of 3.4 belongs to the top.
    """
    highest, lowest = max(map(_score, scored)), min(map(_score, scored))
    top = round((1 - rho) * highest + rho * lowest, SCORE_DECIMALS)
    bottom = round((1 - rho) * lowest + rho * highest, SCORE_DECIMALS)
    return PreferencePair(
        chosen=min((r for r in scored if _score(r) >= top), key=_num_characters),
        rejected=max((r for r in scored if _score(r) <= bottom), key=_num_characters),
    )


def _by_margin(scored: list[ScoredResponse]) -> list[PreferencePair]:
    """Every two responses, the better one first, the widest margin in front."""
    pairs = [
        PreferencePair(a, b) if _score(a) >= _score(b) else PreferencePair(b, a)
        for a, b in combinations(scored, 2)
    ]
    return sorted(pairs, key=_width_and_ids)


def _width_and_ids(pair: PreferencePair) -> tuple[float, int, int]:
    return -pair.margin, pair.chosen.response_id, pair.rejected.response_id


def _score(response: ScoredResponse) -> float:
    assert response.score is not None
    return response.score


def _num_characters(response: ScoredResponse) -> int:
    return len(response.text)


def consistency(prompts: Iterable[Sequence[ScoredResponse]]) -> float:
    """How well repeated judgements agree on the order of a prompt's responses: C in [0, 1].

        C = mean over prompts of the mean over judge indices a < b of (tau_x(a, b) + 1) / 2

    where tau_x is Kendall's tau with ties (see `_tau_x`), over the responses that both
    judgements scored. The caller gives the prompts whose labels are in question: those with
    a pair. A prompt counts if some two judgements scored two responses in common. 1 is one
    order, 1/2 is chance, 0 is opposite orders; 1 too where nothing can be compared, since
    then nothing is in doubt.

    After CREAM (arXiv 2410.12735), which compares the rankings of two successive
    models; here the judge's own samples stand in for them, because they are stored.
    """
    agreements = [fmean(taus) for responses in prompts if (taus := _taus(responses))]
    return (fmean(agreements) + 1) / 2 if agreements else 1.0


def _taus(responses: Sequence[ScoredResponse]) -> list[float]:
    """Of each two judgements that scored at least two responses in common."""
    by_judge = list(zip_longest(*(response.scores for response in responses)))
    in_common = (
        [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        for a, b in combinations(by_judge, 2)
    )
    return [_tau_x(both) for both in in_common if len(both) > 1]


def _tau_x(scores: Sequence[tuple[float, float]]) -> float:
    """Of two judgements' scores of the same responses, in [-1, 1] (Emond and Mason 2002):

        tau_x = (agreeing - discordant) / number of pairs of responses

    Two responses agree where both judgements order them alike or both tie them; where one
    alone ties them they count as neither. Without ties it is Kendall's tau.
    """
    signs = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for a, b in combinations(scores, 2)]
    num_agreeing = sum(one == other for one, other in signs)
    num_discordant = sum(one * other < 0 for one, other in signs)
    return (num_agreeing - num_discordant) / len(signs)


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)


def label_smoothing(consistency: float) -> float:
    """What DPO's labels are softened by, in [0, 1/2]: min(1/2, 1 - C).

    CREAM trains on C L(chosen, rejected) + (1 - C) L(rejected, chosen), with L DPO's loss:
    a label that is wrong with probability 1 - C. Below C = 1/2 that loss would prefer the
    rejected side; the clamp lets such a judge teach no direction rather than the opposite.

    Raises:
        ValueError: the consistency is not in [0, 1].
    """
    if not 0 <= consistency <= 1:
        raise ValueError(f"a consistency lies between 0 and 1, and {consistency} does not")
    return min(0.5, 1 - consistency)
