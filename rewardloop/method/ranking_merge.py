"""Puts a newly imported ranking of one prompt together with the one that is known. Pure.

Owns the rule: the known order stays as it is, and a new response joins it only where the new
ranking says how it stands to every known response. It says so through the texts that both
rankings hold: what is better than A is better than all that A is better than. Whatever the two
rankings do not tell, or tell in two ways, is left out and counted, never guessed.

Texts are the same if they are equal but for Unicode form and outer blanks.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from rewardloop.records import MAX_RANKED_RESPONSES, RankedText
from rewardloop.texts import canonical


class NotMerged(StrEnum):
    """Why a response of the new ranking did not change the known one."""

    ORDER_UNKNOWN = "order_unknown"
    """A new response: the new ranking does not say how it stands to some known one."""
    CONTRADICTS_KNOWN_ORDER = "contradicts_known_order"
    """A new response that would have to stand in two places, or a known one that the new
    ranking orders otherwise; the known order stays."""
    TOO_MANY = "too_many"
    """A new response: the prompt has `MAX_RANKED_RESPONSES` already."""


@dataclass(frozen=True, slots=True)
class Merged:
    responses: tuple[RankedText, ...]
    """Best first. Known ones keep their order, and their ranks where nothing is new."""
    num_new: int
    left_out: Counter[NotMerged]


_Key = tuple[float, int, int]
"""(known rank, whether it stands behind that rank, new rank): sorts all responses."""


def merge(known: Sequence[RankedText], new: Sequence[RankedText]) -> Merged:
    """The known ranking with what the new one adds."""
    ranks = {canonical(response.text): response.rank for response in reversed(known)}
    shared = [(r.rank, ranks[canonical(r.text)]) for r in new if canonical(r.text) in ranks]
    left_out = Counter({NotMerged.CONTRADICTS_KNOWN_ORDER: _num_contradicted(shared)})
    placed: list[tuple[_Key, RankedText]] = [((r.rank, 0, 0), r) for r in known]
    for response in _unknown(new, ranks):
        place = _place(response.rank, shared, set(ranks.values()))
        if isinstance(place, tuple) and len(placed) >= MAX_RANKED_RESPONSES:
            place = NotMerged.TOO_MANY
        if isinstance(place, tuple):
            placed.append((place, response))
        else:
            left_out[place] += 1
    num_new = len(placed) - len(known)
    return Merged(_numbered(placed) if num_new else tuple(known), num_new, +left_out)


def _unknown(new: Iterable[RankedText], ranks: dict[str, int]) -> list[RankedText]:
    """The new texts, best first; of one that stands there twice the better rank."""
    found: dict[str, RankedText] = {}
    for response in sorted(new, key=lambda r: r.rank):
        if canonical(response.text) not in ranks:
            found.setdefault(canonical(response.text), response)
    return list(found.values())


def _place(
    rank: int, shared: Sequence[tuple[int, int]], known_ranks: Iterable[int]
) -> _Key | NotMerged:
    """Where a new response of this rank stands among the known ones.

    `shared` holds (rank in the new ranking, known rank) of the texts that are in both.
    """
    low = max((known for other, known in shared if other < rank), default=-1)
    high = min((known for other, known in shared if other > rank), default=inf)
    tied = {known for other, known in shared if other == rank}
    if low >= high or len(tied) > 1 or any(not low < known < high for known in tied):
        return NotMerged.CONTRADICTS_KNOWN_ORDER
    if tied:
        return (tied.pop(), 0, 0)
    if any(low < known < high for known in known_ranks):
        return NotMerged.ORDER_UNKNOWN
    return (low, 1, rank)


def _num_contradicted(shared: Sequence[tuple[int, int]]) -> int:
    """How many texts stand otherwise to some other text in the new ranking than in the known."""
    return sum(
        any(_order(rank, other) != _order(known, other_known) for other, other_known in shared)
        for rank, known in shared
    )


def _order(first: int, second: int) -> int:
    return (first > second) - (first < second)


def _numbered(placed: Sequence[tuple[_Key, RankedText]]) -> tuple[RankedText, ...]:
    """Ranks from 0 without gaps; equal keys are a tie."""
    ranks = {key: rank for rank, key in enumerate(sorted({key for key, _ in placed}))}
    in_order = sorted(placed, key=lambda item: item[0])
    return tuple(replace(response, rank=ranks[key]) for key, response in in_order)
