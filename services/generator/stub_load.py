"""How much the stub engine has to do, told as vLLM tells it.

A request counts once, however many answers it asks for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StubLoad:
    """So many requests run at once; the others wait, as in vLLM's scheduler."""

    def __init__(self, max_running: int) -> None:
        self._places = asyncio.Semaphore(max_running)
        self.num_running = 0
        self.num_waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        self.num_waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.num_waiting -= 1
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
            self._places.release()

    def metrics(self) -> bytes:
        """The two gauges that vLLM has of it, in its words."""
        labels = 'engine="0",model_name="policy"'
        return "".join(
            f"# TYPE vllm:num_requests_{which} gauge\n"
            f"vllm:num_requests_{which}{{{labels}}} {number:.1f}\n"
            for which, number in (("running", self.num_running), ("waiting", self.num_waiting))
        ).encode()
