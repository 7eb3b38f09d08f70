"""Scored responses to preference pairs. Pure.

Every policy works on stored scores alone, so policies can be compared on one
roll-out. Invariants: a response without a parsed score or without text is never a
side; the two sides of a pair are two answers, not two spellings of one (see
`answers`); the chosen mean is above the rejected one by more than `min_margin`;
the result does not depend on the order of the input; a prompt without a pair says
why, and what is left out is counted. Knows neither where scores come from nor how
they are trained on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from rewardloop.method.answers import has_text, pooled, same_text_key
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
    NO_TEXT = "no_text"
    """Too few scored responses hold a letter, a digit or a symbol."""
    CUT = "cut"
    """`cut_answers: drop` leaves too few scored responses."""
    SAME_TEXT = "same_text"
    """The scored responses are one answer."""


@dataclass(frozen=True, slots=True)
class PairedPrompt:
    """What one prompt's responses gave."""

    pairs: tuple[PreferencePair, ...]
    """Widest margin first."""
    unpaired: Unpaired | None
    num_without_text: int = 0
    """Scored responses that were left out because they hold no text."""
    num_cut_dropped: int = 0
    """Scored responses that `cut_answers: drop` left out."""
    num_repeated: int = 0
    """Scored responses that repeat another one's text, whose judgements they joined."""

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
    steps = list(_narrowed(responses, config))
    counts = _left_out([step for _, step in steps])
    anchor_steps = list(_narrowed(anchors, config)) if isinstance(policy, Anchored) else steps
    for (reason, scored), (_, rejectable) in zip(steps, anchor_steps, strict=True):
        if (missing := _missing(reason, scored, rejectable)) is not None:
            return PairedPrompt((), missing, *counts)
    candidates = _candidates(policy, steps[-1][1], anchor_steps[-1][1])
    apart = [c for c in candidates if c.margin > round(config.min_margin, MARGIN_DECIMALS)]
    if not apart:
        tied = all(c.margin == 0 for c in candidates)
        return PairedPrompt((), Unpaired.TIED if tied else Unpaired.BELOW_MARGIN, *counts)
    max_pairs = policy.max_pairs_per_prompt if isinstance(policy, SeveralPairs) else 1
    return PairedPrompt(tuple(apart[:max_pairs]), None, *counts)


def sides(responses: Iterable[ScoredResponse], config: Pairing) -> list[ScoredResponse]:
    """The answers that may be a side, by response id: what `pair` chooses from."""
    *_, (_, answers) = _narrowed(responses, config)
    return answers


def _narrowed(
    responses: Iterable[ScoredResponse], config: Pairing
) -> Iterator[tuple[Unpaired, list[ScoredResponse]]]:
    """What is left of the responses after each rule, and the reason where that is too few."""
    left = sorted((r for r in responses if r.score is not None), key=lambda r: r.response_id)
    yield Unpaired.TOO_FEW_SCORED, left
    left = [r for r in left if has_text(r.text)]
    yield Unpaired.NO_TEXT, left
    if config.cut_answers == "drop":
        left = [r for r in left if not r.is_cut]
    yield Unpaired.CUT, left
    yield Unpaired.SAME_TEXT, pooled(left)


def _left_out(steps: Sequence[list[ScoredResponse]]) -> tuple[int, int, int]:
    scored, with_text, uncut, answers = map(len, steps)
    return scored - with_text, with_text - uncut, uncut - answers


def _missing(
    reason: Unpaired, scored: list[ScoredResponse], rejectable: list[ScoredResponse]
) -> Unpaired | None:
    """The reason why there are no two sides, if it is that of this rule."""
    if not scored:
        return reason
    if not rejectable:
        return Unpaired.NO_ANCHOR if reason is Unpaired.TOO_FEW_SCORED else reason
    identity: Callable[[ScoredResponse], object] = (
        _text_key if reason is Unpaired.SAME_TEXT else _id
    )
    return reason if len(set(map(identity, (*scored, *rejectable)))) == 1 else None


def _id(response: ScoredResponse) -> int:
    return response.response_id


def _text_key(response: ScoredResponse) -> str:
    return same_text_key(response.text)


def _candidates(
    policy: PairPolicy, scored: list[ScoredResponse], rejectable: list[ScoredResponse]
) -> list[PreferencePair]:
    """What the policy would pair, widest first, whatever the margin."""
    match policy:
        case LengthControl(rho=rho):
            return [_length_controlled(scored, rho)]
        case SeveralPairs():
            return _by_margin(scored)
        case BestWorst() | Consistency():
            return [PreferencePair(max(scored, key=_score), min(scored, key=_score))]
        case Anchored():
            return _against_anchors(scored, rejectable)[:1]


def _against_anchors(
    scored: list[ScoredResponse], anchors: list[ScoredResponse]
) -> list[PreferencePair]:
    """An anchor with the text of an answer is no side against that answer."""
    pairs = [
        PreferencePair(answer, anchor)
        for answer in scored
        for anchor in anchors
        if _text_key(answer) != _text_key(anchor)
    ]
    return sorted(pairs, key=_width_and_ids)


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

    where tau_x is Kendall's tau with ties (see `_tau_x`), over the pairs of responses that
    both judgements scored and that some judgement of the prompt separates. The caller gives
    the prompts whose labels are in question: those with a pair. 1 is one order, 1/2 is chance,
    0 is opposite orders. A prompt without such pairs does not count; where no prompt counts it
    is 1/2: a judge that gives everything one score has shown no order that could be trusted.

    After CREAM (arXiv 2410.12735), which compares the rankings of two successive
    models; here the judge's own samples stand in for them, because they are stored.
    """
    agreements = [fmean(taus) for responses in prompts if (taus := _taus(responses))]
    return (fmean(agreements) + 1) / 2 if agreements else 0.5


def _taus(responses: Sequence[ScoredResponse]) -> list[float]:
    """Of each two judgements that scored two responses in common which some judgement
    separates."""
    by_judge = list(zip_longest(*(response.scores for response in responses)))
    separated = [
        (i, j)
        for i, j in combinations(range(len(responses)), 2)
        if any(_sign_between(scores, i, j) for scores in by_judge)
    ]
    taus = (_tau_x(a, b, separated) for a, b in combinations(by_judge, 2))
    return [tau for tau in taus if tau is not None]


_Scores = Sequence[float | None]


def _tau_x(a: _Scores, b: _Scores, pairs: Sequence[tuple[int, int]]) -> float | None:
    """Of two judgements' scores over pairs of responses, in [-1, 1] (Emond and Mason 2002):

        tau_x = (agreeing - discordant) / number of pairs that both scored

    Two judgements agree where both order a pair alike or both tie it; where one alone ties
    it they count as neither. Without ties it is Kendall's tau. None where they share no pair.
    """
    signs = [
        (one, other)
        for i, j in pairs
        if (one := _sign_between(a, i, j)) is not None
        and (other := _sign_between(b, i, j)) is not None
    ]
    if not signs:
        return None
    num_agreeing = sum(one == other for one, other in signs)
    num_discordant = sum(one * other < 0 for one, other in signs)
    return (num_agreeing - num_discordant) / len(signs)


def _sign_between(scores: _Scores, i: int, j: int) -> int | None:
    """Which of two responses is scored higher; None where one has no score."""
    first, second = scores[i], scores[j]
    if first is None or second is None:
        return None
    return (first > second) - (first < second)


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
