"""Lets a few pieces of work begin in each round of the event loop.

A thousand answers that come at once, or calls that may be sent at once, would all be worked on
in one round, and whatever else the process does (heartbeats, deadlines, writing) would wait for
the last of them. In turn, the others wait for NUM_IN_A_ROUND at most.
"""

import asyncio
from collections import deque

NUM_IN_A_ROUND = 8


class Turns:
    """Bound to the event loop in which it is used."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for one's turn: those that asked earlier come first."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._let_on, loop)
        await turn

    def _let_on(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(NUM_IN_A_ROUND, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may be gone
                turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_on, loop)
