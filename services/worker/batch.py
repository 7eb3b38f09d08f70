"""A batch of prompts to be written, whose failed attempts nobody counts but this task.

A batch is stored as a whole, so a task that dies loses its attempts with it.
"""

import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from rewardloop import telemetry
from rewardloop.errors import RewardloopError
from rewardloop.store.candidates import Candidate
from rewardloop.store.pauses import pause_after

logger = logging.getLogger("rewardloop.worker")


class Batch:
    """What is written under each number; where that failed too often, why."""

    def __init__(
        self,
        write: Callable[[int], Awaitable[Candidate]],
        numbers: Iterable[int],
        max_attempts: int,
    ) -> None:
        self.written: dict[int, Candidate] = {}
        self._write = write
        self._max_attempts = max_attempts
        self._num_attempts: dict[int, int] = {}
        self._waiting = [(0.0, number) for number in numbers]
        """A heap: when its pause is over, the number."""

    async def take(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count and self._waiting and self._waiting[0][0] <= time.monotonic():
            taken.append(heapq.heappop(self._waiting)[1])
        return taken

    async def seconds_until_due(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    async def work(self, number: int) -> None:
        self.written[number] = await self._write(number)

    async def failed(self, number: int, error: RewardloopError, *, counts: bool) -> None:
        telemetry.FAILED_ATTEMPTS.labels("candidate", error.kind).inc()
        logger.warning("new prompt %d: %s", number, error.message)
        num_attempts = self._num_attempts[number] = self._num_attempts.get(number, 0) + counts
        if num_attempts >= self._max_attempts:
            self.written[number] = Candidate(number, "", "failed", error.message)
        else:
            due = time.monotonic() + pause_after(num_attempts).total_seconds()
            heapq.heappush(self._waiting, (due, number))
