"""Whether this replica should be sent requests, which is more than being alive.

`GET /ready` is 503 from the start of a drain until the weights are verified, and for good once
the server was told to end. `/health` stays 200 meanwhile: nobody shall restart a replica that
loads weights. Reasons are fixed words, since whoever asks shows no key.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rewardloop.errors import UpstreamUnavailable

STARTING = "this replica has just started and still verifies what it loaded"
SWAPPING = "this replica loads other weights"
BROKEN = "this replica is out of service: restart it; /health says why"
JOINING = "this replica has not joined the others yet"
LEAVING = "this replica ends"


class Readiness:
    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._changed = asyncio.Event()

    @property
    def reason(self) -> str | None:
        """Why not; None where nothing withholds it."""
        return self._reasons[0] if self._reasons else None

    @contextmanager
    def withheld(self, reason: str = SWAPPING) -> Iterator[None]:
        self._reasons.append(reason)
        self._changed.set()
        try:
            yield
        finally:
            self._reasons.remove(reason)
            self._changed.set()

    def leave(self) -> None:
        """The server ends; nothing makes it ready again."""
        if LEAVING not in self._reasons:
            self._reasons.insert(0, LEAVING)
            self._changed.set()

    async def changed(self, seconds: float) -> None:
        """Wait until something changed since this was last called, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        self._changed.clear()

    def require(self) -> None:
        """
        Raises:
            UpstreamUnavailable: something withholds it.
        """
        if self._reasons:
            raise UpstreamUnavailable(f"not ready: {self.reason}")
