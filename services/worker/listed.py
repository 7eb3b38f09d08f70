"""A list of items that one task works through, with their failed attempts in Postgres."""

import heapq
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from rewardloop import telemetry
from rewardloop.config import Rollout
from rewardloop.errors import RewardloopError, TooManyDead
from rewardloop.store import Store, failed_items
from rewardloop.store.failed_items import Kind
from rewardloop.store.models import FailedItem
from rewardloop.store.pauses import pause_after

logger = logging.getLogger("rewardloop.worker")

ItemT = TypeVar("ItemT")


class Listed(Generic[ItemT]):
    """Items by their names, each of which is worked on until it is done or dead.

    The task holds the lock of the subject that wants them, so nobody else counts at them.
    """

    def __init__(
        self,
        store: Store,
        subject_id: UUID,
        kind: Kind,
        work: Callable[[ItemT], Awaitable[None]],
        max_attempts: int,
    ) -> None:
        self._store = store
        self._subject_id = subject_id
        self._kind = kind
        self._work = work
        self._max_attempts = max_attempts
        self._items: dict[str, ItemT] = {}
        self._num_attempts: dict[str, int] = {}
        self._waiting: list[tuple[float, int, str]] = []
        """A heap: when its pause is over, its place in the list, its name."""

    async def fill(self, items: dict[str, ItemT]) -> None:
        """Take these, but for those that are dead."""
        async with self._store.transaction() as session:
            failing = await failed_items.of(session, self._subject_id, self._kind)
        self._items = items
        self._num_attempts = {name: found.num_attempts for name, found in failing.items()}
        now = time.monotonic()
        for place, name in enumerate(items):
            found = failing.get(name)
            if found is None:
                self._waiting.append((0.0, place, name))
            elif not found.is_dead:
                self._waiting.append((now + found.pause_seconds, place, name))
        heapq.heapify(self._waiting)

    async def take(self, count: int) -> list[str]:
        taken: list[str] = []
        while len(taken) < count and self._waiting and self._waiting[0][0] <= time.monotonic():
            taken.append(heapq.heappop(self._waiting)[-1])
        return taken

    async def seconds_until_due(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    async def work(self, name: str) -> None:
        await self._work(self._items[name])

    async def failed(self, name: str, error: RewardloopError, *, counts: bool) -> None:
        num_attempts = self._num_attempts[name] = self._num_attempts.get(name, 0) + counts
        is_dead = counts and num_attempts >= self._max_attempts
        async with self._store.transaction() as session:
            await failed_items.note_failure(
                session,
                self._subject_id,
                self._kind,
                name,
                error,
                num_attempts=num_attempts,
                is_dead=is_dead,
            )
        telemetry.FAILED_ATTEMPTS.labels(self._kind, error.kind).inc()
        logger.warning("%s: %s%s", name, error.message, "; it is dead" if is_dead else "")
        if not is_dead:
            due = time.monotonic() + pause_after(num_attempts).total_seconds()
            heapq.heappush(self._waiting, (due, 0, name))


def left_out(
    what: str, dead: Sequence[FailedItem], num_wanted: int, config: Rollout, mend: str
) -> dict[str, Any] | None:
    """What a finished phase leaves out, for a report; None where nothing is dead.

    An item's name begins with the thing that is left out with it, before the first comma: two
    answers to one prompt are one prompt.

    Raises:
        TooManyDead: more things than the config allows.
    """
    if not dead:
        return None
    num_dead = len({item.item.partition(",")[0] for item in dead})
    max_dead = config.max_dead(num_wanted)
    ((worst, num_worst),) = Counter(item.last_error for item in dead).most_common(1)
    example = next(item.item for item in dead if item.last_error == worst)
    if num_dead > max_dead:
        raise TooManyDead(
            f"{num_dead} of {num_wanted} {what} are dead: their attempts failed while the servers "
            f"answered others. max_dead_share {config.max_dead_share:g} allows {max_dead}. The "
            f"most frequent error, seen {num_worst} times, at {example} for one: {worst}. {mend}",
            num_dead=num_dead,
            num_items=num_wanted,
        )
    return {
        "num_items": num_wanted,
        "num_dead": num_dead,
        "max_dead": max_dead,
        "error": worst,
        "num_of_error": num_worst,
    }
