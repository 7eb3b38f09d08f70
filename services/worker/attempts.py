"""Works on many items at once, and says whose failure a failure is: the item's or the server's.

An item is a prompt of a roll-out, a ranked response to judge, an answer or a comparison of an
evaluation, a prompt to be written. When one fails, the others go on, and the server is asked for
something small of the same form (a probe):

- the server answers: the failure is the item's, and one of its attempts;
- it does not either: the failure is the server's, no attempt counts, and the error is raised,
  for the caller to say what it means. But where the answers cannot be read, or the server
  refuses the key or the model's name, which ends an iteration for good, it must have failed
  SEVERAL times with no success in between: until then nobody is at fault.

Errors that come from no server (our own code, a value that cannot be stored) are the item's.
This file knows neither what the items are nor where their attempts are counted.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from rewardloop.errors import (
    Conflict,
    InvalidInput,
    RewardloopError,
    UnreadableAnswer,
    UpstreamMismatch,
    UpstreamRejected,
    UpstreamUnavailable,
    recordable,
)
from services.worker.permit import Permit

logger = logging.getLogger("rewardloop.worker")

SEVERAL = 8
"""Failures in a row, probes among them, before a server is called the wrong one."""
PROBE_SECONDS = 30.0
MIN_WAIT_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""How often it is looked for items whose pause is over, while others are worked on."""

T = TypeVar("T")
ItemT = TypeVar("ItemT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)

Probe = Callable[[], Awaitable[object]]


class AskFailed(Exception):
    """A request to `server` failed with `error`."""

    def __init__(self, server: str, error: RewardloopError) -> None:
        super().__init__(error.message)
        self.server = server
        self.error = error


class Fault(Enum):
    ITEM = auto()
    SERVER = auto()
    UNSURE = auto()


class Servers:
    """What one task knows of the servers that it asks."""

    def __init__(self, probes: dict[str, Probe]) -> None:
        self._probes = probes
        self._num_failed: Counter[str] = Counter()
        self._looking = {server: asyncio.Lock() for server in probes}
        self._looked: dict[str, tuple[float, RewardloopError | None]] = {}

    async def asked(self, server: str, request: Awaitable[T]) -> T:
        """What the server answers.

        Raises:
            InvalidInput, UpstreamRejected: it refuses the request, and will again.
            AskFailed: any other error.
        """
        try:
            found = await request
        except (InvalidInput, UpstreamRejected):
            self._num_failed[server] = 0
            raise
        except Exception as error:
            raise AskFailed(server, _known(error)) from error
        self._num_failed[server] = 0
        return found

    async def fault_of(self, failure: AskFailed) -> tuple[Fault, RewardloopError]:
        """Whose failure it is, and the error that says so."""
        self._num_failed[failure.server] += 1
        found = await self._probe(failure.server)
        if found is None:
            return Fault.ITEM, failure.error
        for error in (failure.error, found):
            if error.transient:
                return Fault.SERVER, error
        if self._num_failed[failure.server] < SEVERAL:
            return Fault.UNSURE, failure.error
        if isinstance(failure.error, UnreadableAnswer):
            return Fault.SERVER, UpstreamMismatch(failure.error.message)
        return Fault.SERVER, failure.error

    async def _probe(self, server: str) -> RewardloopError | None:
        """What is wrong with the server now; those that ask at once share one request."""
        asked_at = time.monotonic()
        async with self._looking[server]:
            began_at, found = self._looked.get(server, (-1.0, None))
            if began_at < asked_at:
                began_at, found = time.monotonic(), await self._look(server)
                self._looked[server] = began_at, found
        return found

    async def _look(self, server: str) -> RewardloopError | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.asked(server, self._probes[server]())
        except (InvalidInput, UpstreamRejected):
            return None  # it answers
        except AskFailed as failure:
            found = failure.error
        except TimeoutError:
            found = UpstreamUnavailable(
                f"the {server} did not answer a small request within {PROBE_SECONDS:.0f} s"
            )
        else:
            return None
        self._num_failed[server] += 1
        return found


class Source(Protocol[ItemT]):
    """Where the items come from, what is done with them, and where their attempts are counted."""

    async def take(self, count: int) -> Sequence[ItemT]:
        """Up to `count` items whose turn it is."""

    async def seconds_until_due(self) -> float | None:
        """How long to wait for the next item; None where none is left."""

    async def work(self, item: ItemT) -> None:
        """
        Raises:
            AskFailed: a server did not do its part.
        """

    async def failed(self, item: ItemT, error: RewardloopError, *, counts: bool) -> None:
        """Note the item's error, as an attempt where it `counts`."""


async def work_through(
    source: Source[ItemT],
    servers: Servers,
    permit: Permit | None = None,
    *,
    limit: int,
    seconds: float,
) -> None:
    """Work on the source's items, `limit` at once, until none is left; none is begun after
    `seconds`, or without the permit.

    Raises:
        RewardloopError: a server is at fault, or the database is away. What was in flight is
            cancelled.
    """
    permit = permit or Permit()
    deadline = time.monotonic() + seconds
    running = _Running()
    try:
        while True:
            may_take = permit.may_take_more and time.monotonic() < deadline
            if may_take and len(running) < limit:
                for item in await source.take(limit - len(running)):
                    running.begin(_attempt(source, servers, item))
            if len(running):
                await running.some_ended()
            elif not permit.may_take_more or not await _waited(source, deadline):
                return
    finally:
        await running.cancel()


class _Running:
    """Tasks in flight, and those that have ended since the last look. `asyncio.wait` would touch
    each of them for every one that ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: list[asyncio.Task[None]] = []
        self._called = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task[None]) -> None:
        self._ended.append(task)
        self._called.set()

    async def some_ended(self) -> None:
        """Wait for it, for a look at most.

        Raises:
            RewardloopError: what one of them raised.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._called.wait()
        self._called.clear()
        ended, self._ended = self._ended, []
        self._tasks.difference_update(ended)
        await all_done(*ended)

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _waited(source: Source[ItemT], deadline: float) -> bool:
    """Wait for the next pause to end, for a look at most; returns whether there is one, and
    time for it."""
    seconds = await source.seconds_until_due()
    if seconds is None or time.monotonic() + max(0.0, seconds) >= deadline:
        return False
    await asyncio.sleep(min(LOOK_SECONDS, max(MIN_WAIT_SECONDS, seconds)))
    return True


async def _attempt(source: Source[ItemT], servers: Servers, item: ItemT) -> None:
    """One attempt at the item.

    Raises:
        RewardloopError: a server is at fault, or the database is away.
    """
    try:
        await source.work(item)
    except AskFailed as failure:
        fault, error = await servers.fault_of(failure)
        await source.failed(item, failure.error, counts=fault is Fault.ITEM)
        if fault is Fault.SERVER:
            raise error from failure
    except (UpstreamUnavailable, Conflict):
        raise  # the database is away, or somebody else has ended what this is for
    except Exception as error:
        await source.failed(item, _known(error), counts=True)


async def all_done(*work: Awaitable[None]) -> None:
    """Let each end, and then raise the first error: what another one stores is not lost."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    for found in ended:
        if isinstance(found, BaseException):
            raise found


def _known(error: Exception) -> RewardloopError:
    if not isinstance(error, RewardloopError):
        logger.error("an error that no code foresaw", exc_info=error)
    return recordable(error)
