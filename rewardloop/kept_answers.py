"""Answers kept by request key, so that whoever asks again is given the same one.

A request names a key of its own. While its answer is being made, another request with the key
waits for the same answer; afterwards the answer is kept for KEEP_SECONDS. What was begun is
finished although its caller went away; after ABANDONED_SECONDS in which nobody waited for it,
it is given up. A caller that finds an answer overdue may have it made `anew`: the first one to
be ready is everybody's. One that is overdue by what others of its kind took is made anew without
a word: a caller that has just started cannot know what is late here.

One key asks one thing: with another question it is refused. Failures are not kept. The number
and the bytes of what is kept are bounded, and the oldest go first.

Knows nothing of HTTP, nor of what an answer is.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rewardloop import telemetry
from rewardloop.clients.latency import Latency
from rewardloop.clients.server import KEY_HEADER
from rewardloop.errors import Conflict, InvalidInput, UpstreamUnavailable

MAX_KEY_CHARS = 200

KEEP_SECONDS = 600.0
MAKE_SECONDS = 600.0
"""An answer that takes longer is given up, so that a call that hangs is not in flight for ever."""
ABANDONED_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often it is looked for overdue answers."""
MAX_MAKINGS = 3
"""At a time, of one answer, unless its callers want more."""
MAX_KINDS = 64
MAX_ANSWERS = 20_000
MAX_BYTES = 128 * 2**20

T = TypeVar("T")


@dataclass(eq=False)
class _Entry(Generic[T]):
    key: str
    asked: str
    """Digest of the question."""
    kind: str
    result: asyncio.Future[T]
    make: Callable[[], Awaitable[T]] | None
    """None once there is an answer."""
    makings: set[asyncio.Task[None]] = field(default_factory=set)
    begun_at: float = 0.0
    """When the latest making began."""
    num_waiting: int = 0
    num_bytes: int = 0
    kept_until: float = 0.0


class KeptAnswers(Generic[T]):
    """Bound to one event loop. `size` says how many bytes an answer takes; one of None is given
    to those who wait for it and not kept."""

    def __init__(self, size: Callable[[T], int | None]) -> None:
        self._size = size
        self._entries: dict[str, _Entry[T]] = {}
        self._open: set[_Entry[T]] = set()
        """Those that are being made."""
        self._kept: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._num_bytes = 0
        self._latencies: OrderedDict[str, Latency] = OrderedDict()
        self._watching: asyncio.Task[None] | None = None

    async def get(
        self,
        key: str,
        question: bytes,
        make: Callable[[], Awaitable[T]],
        *,
        kind: str = "",
        anew: bool = False,
        still_holds: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The answer under `key`, made by `make` unless there is one or it is being made.

        Answers of one `kind` should take about as long as each other.

        One that no longer `still_holds` is dropped and made again.

        Raises:
            InvalidInput: the key is too long.
            Conflict: the key was used for another question.
        """
        if len(key) > MAX_KEY_CHARS:
            raise InvalidInput(f"{KEY_HEADER} has more than {MAX_KEY_CHARS} characters")
        asked = hashlib.sha256(question).hexdigest()
        entry, is_new = self._entry(key, asked, kind, make, still_holds)
        if not entry.result.done() and (is_new or anew):
            self._begin(entry, make)
        elif not is_new:
            how = "kept" if entry.result.done() else "joined"
            telemetry.ANSWERS_GIVEN_AGAIN.labels(how).inc()
        return await self._wait(entry)

    def _entry(
        self,
        key: str,
        asked: str,
        kind: str,
        make: Callable[[], Awaitable[T]],
        still_holds: Callable[[T], bool],
    ) -> tuple[_Entry[T], bool]:
        self._drop_the_oldest()
        entry = self._entries.get(key)
        if entry is not None and entry.asked != asked:
            raise Conflict(f"{KEY_HEADER} {key} was sent with another body; use another key")
        if entry is not None and entry.result.done() and not still_holds(entry.result.result()):
            self._drop(entry, "version")
            entry = None
        if entry is not None:
            return entry, False
        entry = _Entry(key, asked, kind, asyncio.get_running_loop().create_future(), make)
        self._entries[key] = entry
        self._open.add(entry)
        return entry, True

    def _begin(self, entry: _Entry[T], make: Callable[[], Awaitable[T]]) -> None:
        entry.begun_at = time.monotonic()
        entry.makings.add(asyncio.create_task(self._make(entry, make)))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._open:
            await asyncio.sleep(LOOK_SECONDS)
            for entry in self._overdue(time.monotonic()):
                assert entry.make is not None
                telemetry.OVERDUE_CALLS.labels("self").inc()
                self._begin(entry, entry.make)

    def _overdue(self, now: float) -> list[_Entry[T]]:
        """Those that somebody waits for."""
        by_kind: dict[str, list[_Entry[T]]] = {}
        for entry in self._open:
            by_kind.setdefault(entry.kind, []).append(entry)
        found: list[_Entry[T]] = []
        for kind, entries in by_kind.items():
            entries.sort(key=lambda entry: entry.begun_at, reverse=True)
            ages = [now - entry.begun_at for entry in entries]
            late = self._latency(kind).overdue(ages)
            found += [entry for entry, is_late in zip(entries, late, strict=True) if is_late]
        return [e for e in found if e.num_waiting and len(e.makings) < MAX_MAKINGS]

    def _latency(self, kind: str) -> Latency:
        latency = self._latencies.setdefault(kind, Latency(MAKE_SECONDS))
        self._latencies.move_to_end(kind)
        if len(self._latencies) > MAX_KINDS:
            self._latencies.popitem(last=False)
        return latency

    async def _wait(self, entry: _Entry[T]) -> T:
        entry.num_waiting += 1
        try:
            return await asyncio.shield(entry.result)
        finally:
            entry.num_waiting -= 1
            if not entry.num_waiting and not entry.result.done():
                asyncio.get_running_loop().call_later(ABANDONED_SECONDS, self._give_up, entry)

    def _give_up(self, entry: _Entry[T]) -> None:
        if entry.num_waiting or entry.result.done():
            return
        self._forget(entry)
        for making in entry.makings:
            making.cancel()

    async def _make(self, entry: _Entry[T], make: Callable[[], Awaitable[T]]) -> None:
        making = asyncio.current_task()
        assert making is not None
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(MAKE_SECONDS):
                answer = await make()
            self._latency(entry.kind).note(time.monotonic() - began_at)
            self._succeeded(entry, making, answer)
        except TimeoutError:
            error = UpstreamUnavailable(f"no answer was made within {MAKE_SECONDS:.0f} s")
            self._failed(entry, making, error)
        except Exception as error:
            self._failed(entry, making, error)
        finally:
            entry.makings.discard(making)

    def _failed(self, entry: _Entry[T], making: asyncio.Task[None], error: Exception) -> None:
        """It is everybody's failure unless the answer is there or still being made."""
        if entry.result.done() or entry.makings - {making}:
            return
        self._forget(entry)
        entry.result.set_exception(error)
        entry.result.exception()  # whoever waited has gone, perhaps

    def _succeeded(self, entry: _Entry[T], making: asyncio.Task[None], answer: T) -> None:
        if entry.result.done():
            return
        num_bytes = self._size(answer)
        self._open.discard(entry)
        entry.make = None
        entry.result.set_result(answer)
        for other in entry.makings - {making}:
            other.cancel()
        if num_bytes is None:
            self._forget(entry)
            return
        entry.num_bytes, entry.kept_until = num_bytes, time.monotonic() + KEEP_SECONDS
        self._kept[entry.key] = entry
        self._num_bytes += num_bytes
        self._drop_the_oldest()

    def _drop_the_oldest(self) -> None:
        now = time.monotonic()
        while self._kept:
            entry = next(iter(self._kept.values()))
            too_much = len(self._kept) > MAX_ANSWERS or self._num_bytes > MAX_BYTES
            if not too_much and entry.kept_until > now:
                break
            self._drop(entry, "room" if entry.kept_until > now else "age")
        telemetry.KEPT_ANSWERS.set(len(self._kept))
        telemetry.KEPT_ANSWER_BYTES.set(self._num_bytes)

    def _drop(self, entry: _Entry[T], reason: str) -> None:
        telemetry.KEPT_ANSWERS_DROPPED.labels(reason).inc()
        del self._kept[entry.key]
        self._num_bytes -= entry.num_bytes
        self._forget(entry)

    def _forget(self, entry: _Entry[T]) -> None:
        self._open.discard(entry)
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
