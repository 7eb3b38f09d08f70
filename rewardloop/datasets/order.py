"""Merges several orders of a prompt's answers into one, and invents none. Pure.

Each row, scale or pair of labels orders some of the answers. Answers on which two
orders contradict each other are left out. Two answers that no order compares, not
even through a third answer, are not put in order by guessing: the longest run of
answers in which the order of each two is known is kept, and the others are left out.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Merged(Generic[K]):
    """One order out of many."""

    ranks: Mapping[K, int]
    """0 is the best; equal ranks are a tie."""
    contradictory: frozenset[K]
    """Better than another in one order, and worse than it or tied with it in others."""
    untold: frozenset[K]
    """Their order among those that are kept is told by nobody."""


def merge(orders: Sequence[Mapping[K, float]], priority: Sequence[K]) -> Merged[K]:
    """One order out of all; lower numbers are better, within each order.

    `priority` holds the orders' keys, and no others; where two runs are equally long, the one
    with the earlier keys is kept.
    """
    better = {key: set[K]() for key in priority}
    tied = {key: {key} for key in priority}
    for order in orders:
        _add(order, better, tied)
    bad = _contradictory(priority, better, tied)
    kept = [key for key in priority if key not in bad]
    groups = _tied_groups(kept, tied)
    run = _longest_run(groups, _reach(kept, better, tied))
    ranks = {key: rank for rank, group in enumerate(run) for key in group}
    untold = frozenset(key for key in kept if key not in ranks)
    return Merged(ranks, frozenset(bad), untold)


def _add(order: Mapping[K, float], better: dict[K, set[K]], tied: dict[K, set[K]]) -> None:
    for key, rank in order.items():
        for other, its_rank in order.items():
            if rank < its_rank:
                better[key].add(other)
            elif rank == its_rank:
                tied[key].add(other)


def _contradictory(
    keys: Iterable[K], better: Mapping[K, set[K]], tied: Mapping[K, set[K]]
) -> set[K]:
    """Keys on a way that leads back to its start and is strictly better somewhere."""
    reach = _reach(list(keys), better, tied)
    bad: set[K] = set()
    for key in reach:
        for other in better[key]:
            if key in reach[other]:
                bad |= {key, other}
    return bad


def _reach(
    keys: Sequence[K], better: Mapping[K, set[K]], tied: Mapping[K, set[K]]
) -> dict[K, set[K]]:
    """All that each key is better than or tied with, directly or through others."""
    wanted = set(keys)
    found: dict[K, set[K]] = {}
    for key in keys:
        seen, waiting = {key}, [key]
        while waiting:
            here = waiting.pop()
            for other in ((better[here] | tied[here]) & wanted) - seen:
                seen.add(other)
                waiting.append(other)
        found[key] = seen
    return found


def _tied_groups(keys: Sequence[K], tied: Mapping[K, set[K]]) -> list[list[K]]:
    reach = _reach(keys, {key: set() for key in keys}, tied)
    groups: dict[frozenset[K], list[K]] = {}
    for key in keys:
        groups.setdefault(frozenset(reach[key]), []).append(key)
    return list(groups.values())


def _longest_run(groups: Sequence[list[K]], reach: Mapping[K, set[K]]) -> list[list[K]]:
    """The heaviest chain of groups, each of which is better than the next."""
    heads = [group[0] for group in groups]
    below = {
        i: [j for j, head in enumerate(heads) if j != i and head in reach[heads[i]]]
        for i in range(len(groups))
    }
    best: dict[int, list[int]] = {}
    for i in sorted(below, key=lambda i: len(below[i])):
        runs = [best[j] for j in below[i]]
        tail = max(runs, key=lambda run: _weight(run, groups), default=[])
        best[i] = [i, *tail]
    runs = [best[i] for i in range(len(groups))]
    run = max(runs, key=lambda run: (len(run) > 1, *_weight(run, groups)), default=[])
    return [groups[i] for i in run]


def _weight(run: Sequence[int], groups: Sequence[list[K]]) -> tuple[int, int]:
    """More answers first; then the run that begins with the earlier key."""
    return sum(len(groups[i]) for i in run), -run[0]
