"""Room for so many calls at once; the others wait in the order in which they came.

Unlike a semaphore's, the room may shrink: then nobody enters until enough have left.
"""

import asyncio
from collections import deque


class Slots:
    def __init__(self, num: int) -> None:
        self._num = num
        self.num_taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, num: int) -> None:
        self._num = num
        self._let_in()

    async def __aenter__(self) -> None:
        if self.num_taken < self._num and not self._waiting:
            self.num_taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was let in at the same moment
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self.num_taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.num_taken < self._num:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may be gone
                self.num_taken += 1
                turn.set_result(None)
