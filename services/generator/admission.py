"""Counts the requests inside the engine, holds new ones back during a swap, and refuses them
at the end.

A request is inside once its body was read whole and the gate has understood it, so that a
client that sends half a request holds nobody up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rewardloop import telemetry
from rewardloop.errors import UpstreamUnavailable
from services.generator.ending import Ending

HOLD_SECONDS = 180.0
"""A request that waited this long for a swap is sent away, to try again."""
END_SECONDS = 5.0
"""So long may the requests take to leave that a swap has ended, and as long again by force."""


class Admission:
    """Either open, or closed with `in_flight` falling to zero; finished for good at the end."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._open = asyncio.Event()
        self._open.set()
        self._has_finished = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._inside: set[Ending] = set()

    @asynccontextmanager
    async def request(self, ending: Ending | None = None) -> AsyncIterator[None]:
        """
        Raises:
            UpstreamUnavailable: a swap held the request for HOLD_SECONDS, or it was inside for
                so long that a swap ended it; what it has written until then is lost. Or this
                replica takes no more requests.
        """
        while not self._open.is_set():
            try:
                await asyncio.wait_for(self._open.wait(), HOLD_SECONDS)
            except TimeoutError as error:
                raise UpstreamUnavailable("new weights are being loaded; try again") from error
        if self._has_finished:
            raise UpstreamUnavailable("this replica ends; ask another one")
        ending = ending or Ending()
        self._enter()
        try:
            async with ending.limit:
                self._inside.add(ending)
                yield
        except Exception as error:
            if ending.was_cut:
                raise ending.error() from error
            raise
        finally:
            self._inside.discard(ending)
            self._leave()
        if ending.was_cut:
            raise ending.error()

    def _enter(self) -> None:
        self.in_flight += 1
        self._idle.clear()
        telemetry.REQUESTS_IN_FLIGHT.set(self.in_flight)

    def _leave(self) -> None:
        self.in_flight -= 1
        telemetry.REQUESTS_IN_FLIGHT.set(self.in_flight)
        if not self.in_flight:
            self._idle.set()

    @asynccontextmanager
    async def closed(self, drain_seconds: float) -> AsyncIterator[int]:
        """Keep new requests waiting for the block, and let those in flight finish; after
        `drain_seconds` they are ended. Yields how many were.

        Raises:
            UpstreamUnavailable: some could not be ended either; nothing was done.
        """
        self._open.clear()
        try:
            yield await self._drain(drain_seconds)
        finally:
            self._open.set()

    async def finish(self, drain_seconds: float) -> None:
        """Refuse new requests from now on, and let those in flight end, as for `closed`.

        Raises:
            UpstreamUnavailable: some could not be ended.
        """
        self._has_finished = True
        await self._drain(drain_seconds)

    async def _drain(self, seconds: float) -> int:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return await self._end_all()
        return 0

    async def _end_all(self) -> int:
        """The server stops the work on them by itself, or is made to."""
        ended = list(self._inside)
        telemetry.REQUESTS_ENDED.inc(len(ended))
        for end in (Ending.ask, Ending.force):
            for ending in self._inside & set(ended):
                end(ending)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), END_SECONDS)
                return len(ended)
        raise UpstreamUnavailable(
            f"{self.in_flight} requests were still running {2 * END_SECONDS:.0f} s after they "
            "were ended, so no weights were loaded; restart this replica if that lasts"
        )
