"""Counts the requests inside the engine, and holds new ones back during a swap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rewardloop import telemetry
from rewardloop.errors import UpstreamUnavailable

HOLD_SECONDS = 180.0
"""A request that waited this long for a swap is sent away, to try again."""


class Admission:
    """Either open, or closed with `in_flight` falling to zero."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """
        Raises:
            UpstreamUnavailable: a swap held the request for HOLD_SECONDS.
        """
        while not self._open.is_set():
            try:
                await asyncio.wait_for(self._open.wait(), HOLD_SECONDS)
            except TimeoutError as error:
                raise UpstreamUnavailable("new weights are being loaded; try again") from error
        self._enter()
        try:
            yield
        finally:
            self._leave()

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
    async def closed(self, drain_seconds: float) -> AsyncIterator[None]:
        """Let requests in flight finish and keep new ones waiting for the block.

        Raises:
            UpstreamUnavailable: requests were still in flight after `drain_seconds`.
        """
        self._open.clear()
        try:
            await self._drain(drain_seconds)
            yield
        finally:
            self._open.set()

    async def _drain(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError as error:
            raise UpstreamUnavailable(
                f"{self.in_flight} requests were still running after {seconds:.0f} s"
            ) from error
