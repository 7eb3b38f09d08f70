"""Closes connections whose request's headers do not come, which uvicorn keeps for ever.

uvicorn bounds the size of the headers and the rest between two requests, but not the time
that a request's headers take. It can go when uvicorn has such a bound (its issue 1263).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http import auto

HEADER_SECONDS = 30.0


class _HeadersInTime:
    """In front of either of uvicorn's protocols."""

    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        if self._is_in_request():
            self._wait_no_more()
        elif self._due is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)  # type: ignore[misc]

    def _is_in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._due = self.loop.call_later(HEADER_SECONDS, self._close)

    def _wait_no_more(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _close(self) -> None:
        self._due = None
        if not self._is_in_request():
            self.transport.close()


def close_slow_ones() -> None:
    """From here on, servers of this process that choose uvicorn's protocol themselves (ours and
    vLLM's) close such connections. Before a server starts."""
    if not issubclass(auto.AutoHTTPProtocol, _HeadersInTime):
        bounded = type("HeadersInTime", (_HeadersInTime, auto.AutoHTTPProtocol), {})
        auto.AutoHTTPProtocol = bounded
