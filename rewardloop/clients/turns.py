"""Lets a few pieces of work begin in each round of the event loop.

A thousand answers that come at once, or calls that may be sent at once, would all be worked on
in one round, and whatever else the process does (heartbeats, deadlines, writing) would wait for
the last of them. In turn, the others wait for NUM_IN_A_ROUND at most.
"""

import asyncio
from collections import deque

NUM_IN_A_ROUND = 16


class Turns:
    """Bound to the event loop in which it is used."""

    def __init__(self) -> None:
        self._num_left = NUM_IN_A_ROUND
        """Pieces that may still begin in this round; all of them where no round is counted."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        """Empty while any are left."""

    async def next(self) -> None:
        """Wait for one's turn: those that asked earlier come first."""
        loop = asyncio.get_running_loop()
        if self._num_left == NUM_IN_A_ROUND:
            loop.call_soon(self._begin_round, loop)
        if self._num_left:
            self._num_left -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin_round(self, loop: asyncio.AbstractEventLoop) -> None:
        num = min(NUM_IN_A_ROUND, len(self._waiting))
        for _ in range(num):
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may be gone
                turn.set_result(None)
        self._num_left = NUM_IN_A_ROUND - num
        if num:
            loop.call_soon(self._begin_round, loop)
