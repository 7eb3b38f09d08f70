"""How a replica ends when it is told to (SIGTERM): unready at once, and no answer lost.

    "not ready" -> requests are still taken while routers notice -> new ones are refused with
    503, which clients send elsewhere -> those in flight end -> the server ends

SIGINT and a second SIGTERM end the server at once, as they do without this.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rewardloop.errors import UpstreamUnavailable
from services.generator.admission import Admission
from services.generator.readiness import Readiness

logger = logging.getLogger("rewardloop.process")


class Leaving:
    def __init__(
        self,
        readiness: Readiness,
        admission: Admission,
        *,
        notice_seconds: float,
        drain_seconds: float,
        swap_ended: Callable[[], Awaitable[None]],
    ) -> None:
        """`drain_seconds` are for requests in flight; what takes longer is ended, to be asked
        again. With 0 nothing is waited for. `swap_ended` waits for a swap that runs: vLLM would
        wait for its end as well, but after it has stopped the engine, which then never comes."""
        self._swap_ended = swap_ended
        self._readiness = readiness
        self._admission = admission
        self._notice_seconds = notice_seconds
        self._drain_seconds = drain_seconds
        self._leaving: asyncio.Task[None] | None = None

    def heed_sigterm(self) -> None:
        """In place of the server's own handler, which drops what is in flight. A server that
        does not run in the main thread gets no signals."""
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._begin)

    def _begin(self) -> None:
        if self._leaving is not None:
            _end_server()
            return
        self._readiness.leave()
        logger.info("told to end; requests in flight have %g s", self._drain_seconds)
        self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            if self._drain_seconds:
                await asyncio.sleep(self._notice_seconds)
                async with asyncio.timeout(self._notice_seconds + 2 * self._drain_seconds):
                    await self._swap_ended()
                    await self._admission.finish(self._drain_seconds)
        except (TimeoutError, UpstreamUnavailable) as error:  # some could not even be ended
            logger.warning("ending with work in flight: %s", error or "out of time")
        finally:
            _end_server()


def _end_server() -> None:
    """Both vLLM and uvicorn handle SIGINT as they would have handled SIGTERM."""
    os.kill(os.getpid(), signal.SIGINT)
