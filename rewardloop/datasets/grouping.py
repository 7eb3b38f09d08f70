"""Derives a prompt's reference and its ranking from all that a file says of its answers. Pure.

Owns what makes an answer good enough to learn, and how rows with the same prompt are
combined. The order of the rows changes nothing: among equal answers the one that stands
earlier in its own row goes first, then the alphabet decides.
A disliked, rejected, worst-ranked or zero-rated answer is never a reference.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rewardloop.datasets.form import (
    Candidate,
    Conversation,
    Disliked,
    Liked,
    Ranked,
    Rated,
    Reference,
    Scale,
)
from rewardloop.datasets.order import merge
from rewardloop.datasets.reasons import Reason
from rewardloop.records import MAX_RANKED_RESPONSES, Message, RankedText

_SURE_RANK = 1
"""The highest rank that a lone answer may have: some files begin with 0, others with 1."""


@dataclass(slots=True)
class Group:
    """All conversations of a file with the same messages."""

    messages: tuple[Message, ...]
    source: str
    line: int
    conversations: list[Conversation] = field(default_factory=list)

    def known_answers(self) -> set[Candidate]:
        return {c for conversation in self.conversations for c in conversation.candidates}


@dataclass(frozen=True, slots=True)
class Judged:
    """What follows from a group."""

    reference: str | None
    ranking: tuple[RankedText, ...]
    """Two answers or more, of at least two ranks, best first; or none."""
    not_references: tuple[Reason, ...]
    """Why each of the other answers is none."""
    not_ranked: tuple[Reason, ...]
    """Why single answers, or the prompt, are missing from the ranking."""


@dataclass(slots=True)
class _Answer:
    """One text, and all that is said of it."""

    text: str
    position: tuple[int, str]
    grades: list[object] = field(default_factory=list)

    def is_called(self, kind: type) -> bool:
        return any(isinstance(grade, kind) for grade in self.grades)


def key_of(text: str) -> str:
    """Texts that are equal but for Unicode's forms and outer white space are one."""
    return unicodedata.normalize("NFC", text).strip()


def judged(group: Group) -> Judged:
    """The group's reference and ranking."""
    answers = _pooled(group.conversations)
    orders = _orders(group.conversations, answers)
    reference, why_not = _reference(answers, orders)
    ranking, unranked = _ranking(group.conversations, answers, orders)
    return Judged(reference, ranking, why_not, unranked)


def _pooled(conversations: Iterable[Conversation]) -> dict[str, _Answer]:
    found: dict[str, _Answer] = {}
    for conversation in conversations:
        for number, candidate in enumerate(conversation.candidates):
            key, position = key_of(candidate.text), (number, candidate.text)
            answer = found.setdefault(key, _Answer(candidate.text, position))
            if position < answer.position:
                answer.text, answer.position = candidate.text, position
            answer.grades.append(candidate.grade)
    return dict(sorted(found.items(), key=lambda item: item[1].position))


def _orders(
    conversations: Iterable[Conversation], answers: Mapping[str, _Answer]
) -> list[dict[str, float]]:
    ranked = [_ranks(conversation.candidates) for conversation in conversations]
    return [order for order in (*ranked, *_by_rating(answers), _by_thumb(answers)) if order]


def _ranks(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Of a text that stands twice in a row the better rank counts."""
    order: dict[str, float] = {}
    for candidate in candidates:
        if isinstance(candidate.grade, Ranked):
            key = key_of(candidate.text)
            order[key] = min(candidate.grade.rank, order.get(key, candidate.grade.rank))
    return order


def _by_rating(answers: Mapping[str, _Answer]) -> list[dict[str, float]]:
    orders: dict[Scale, dict[str, float]] = {}
    for key, answer in answers.items():
        for scale, mean in _ratings(answer).items():
            orders.setdefault(scale, {})[key] = -mean
    return list(orders.values())


def _ratings(answer: _Answer) -> dict[Scale, float]:
    values: dict[Scale, list[float]] = {}
    for grade in answer.grades:
        if isinstance(grade, Rated):
            values.setdefault(grade.scale, []).append(grade.value)
    return {scale: fmean(each) for scale, each in values.items()}


def _by_thumb(answers: Mapping[str, _Answer]) -> dict[str, float]:
    """Liked before disliked; one that is both is in neither place."""
    order: dict[str, float] = {}
    for key, answer in answers.items():
        liked, disliked = answer.is_called(Liked), answer.is_called(Disliked)
        if liked != disliked:
            order[key] = float(disliked)
    return order


def _reference(
    answers: Mapping[str, _Answer], orders: Sequence[Mapping[str, float]]
) -> tuple[str | None, tuple[Reason, ...]]:
    good: list[tuple[int, str]] = []
    why: list[Reason] = []
    for key, answer in answers.items():
        verdict = _verdict(key, answer, orders)
        if isinstance(verdict, Reason):
            why.append(verdict)
        else:
            good.append((verdict, answer.text))
    good.sort(key=lambda each: each[0])
    why += [Reason.OTHER_REFERENCES] * (len(good) - 1)
    return (good[0][1] if good else None), tuple(why)


def _verdict(key: str, answer: _Answer, orders: Sequence[Mapping[str, float]]) -> int | Reason:
    """How good an answer is as a reference, 0 the best; or why it is none."""
    if answer.is_called(Disliked):
        return Reason.DISLIKED
    mine = [order for order in orders if key in order]
    if any(order[key] > min(order.values()) for order in mine):
        return Reason.NOT_THE_BEST
    beats = any(order[key] < max(order.values()) for order in mine)
    ratings = _ratings(answer)
    if any(_is_low(scale, value) for scale, value in ratings.items()):
        return Reason.LOW_RATING
    if beats:
        return 0
    if answer.is_called(Reference) or answer.is_called(Liked):
        return 1 if answer.is_called(Reference) else 2
    if ratings:
        is_known = any(_middle(scale) is not None for scale in ratings)
        return 3 if is_known else Reason.UNKNOWN_SCALE
    if any(len(order) == 1 and order[key] <= _SURE_RANK for order in mine):
        return 4
    is_tied = any(len(order) > 1 for order in mine)
    return Reason.NOT_THE_BEST if answer.is_called(Ranked) and not is_tied else Reason.NO_GRADE


def _is_bad(answer: _Answer) -> bool:
    """Whether it is no answer to learn even where it is better than all others."""
    low = any(_is_low(scale, value) for scale, value in _ratings(answer).items())
    return low or answer.is_called(Disliked)


def _middle(scale: Scale) -> float | None:
    if scale.low is None or scale.high is None:
        return None
    return (scale.low + scale.high) / 2


def _is_low(scale: Scale, value: float) -> bool:
    middle = _middle(scale)
    return value <= (0 if middle is None else middle)


def _ranking(
    conversations: Sequence[Conversation],
    answers: Mapping[str, _Answer],
    orders: Sequence[Mapping[str, float]],
) -> tuple[tuple[RankedText, ...], tuple[Reason, ...]]:
    graded = {key for order in orders for key in order}
    why: list[Reason] = [Reason.REPEATED_TEXT] * sum(map(_num_repeated, conversations))
    if len(graded) > MAX_RANKED_RESPONSES:
        return (), (*why, Reason.TOO_MANY_RESPONSES)
    ranks = _own_ranks(orders)
    if ranks is None:
        merged = merge(orders, [key for key in answers if key in graded])
        ranks = dict(merged.ranks)
        why += [Reason.CONTRADICTORY_ORDER] * len(merged.contradictory)
        why += [Reason.ORDER_NOT_TOLD] * len(merged.untold)
    return _best_first(ranks, answers, why)


def _own_ranks(orders: Sequence[Mapping[str, float]]) -> dict[str, int] | None:
    """One row's ranks are kept as they are: 1, 2 and 0, 1 say the same."""
    if len(orders) != 1 or not all(rank >= 0 and rank == int(rank) for rank in orders[0].values()):
        return None
    return {key: int(rank) for key, rank in orders[0].items()}


def _num_repeated(conversation: Conversation) -> int:
    ranked = [c for c in conversation.candidates if isinstance(c.grade, Ranked)]
    return len(ranked) - len({key_of(candidate.text) for candidate in ranked})


def _best_first(
    ranks: Mapping[str, int], answers: Mapping[str, _Answer], why: Sequence[Reason]
) -> tuple[tuple[RankedText, ...], tuple[Reason, ...]]:
    if len(ranks) < 2:
        return (), (*why, Reason.FEWER_THAN_TWO)
    if len(set(ranks.values())) < 2:
        return (), (*why, Reason.NO_ORDER)
    in_order = sorted(ranks, key=lambda key: (ranks[key], answers[key].position))
    ranking = tuple(
        RankedText(answers[key].text, ranks[key], not _is_bad(answers[key])) for key in in_order
    )
    is_tied = len(set(ranks.values())) < len(ranks)
    return ranking, (*why, Reason.EQUAL_RANKS) if is_tied else tuple(why)
