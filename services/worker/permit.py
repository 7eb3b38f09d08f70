"""Whether a task may go on with what it works for.

A task looks every CHECK_SECONDS whether somebody asked its iteration or evaluation to stop.
After a pause it takes nothing new and lets its calls end; after a cancellation, or once its
work has gone on without it, its calls are dropped.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum, auto

from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import EvaluationState, IterationState, StopWish
from rewardloop.store import Store, evaluations, iterations
from rewardloop.store.models import Evaluation, Iteration

logger = logging.getLogger("rewardloop.worker")

CHECK_SECONDS = 2.0


class Word(Enum):
    """What a look at the database says."""

    GO_ON = auto()
    FINISH = auto()
    DROP = auto()


class Permit:
    """Asked by loops before they take new work."""

    def __init__(self) -> None:
        self.may_take_more = True
        self.is_dropped = False
        self._is_whole = False

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """The block is not dropped halfway: a swap. What was asked for waits for its end."""
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False

    def hear(self, word: Word) -> bool:
        """Returns whether the work is to be dropped now."""
        self.may_take_more = word is Word.GO_ON
        self.is_dropped = word is Word.DROP and not self._is_whole
        return self.is_dropped


def of_iteration(store: Store, seen: Iteration) -> Callable[[], Awaitable[Word]]:
    """How the iteration stands to a task that saw it as `seen` when it began."""

    async def look() -> Word:
        async with store.transaction() as session:
            now = await iterations.get(session, seen.id)
        same = (IterationState.RUNNING, seen.phase, seen.num_starts)
        if now.wish == StopWish.CANCEL or (now.state, now.phase, now.num_starts) != same:
            return Word.DROP
        return Word.FINISH if now.wish else Word.GO_ON

    return look


def of_evaluation(store: Store, seen: Evaluation) -> Callable[[], Awaitable[Word]]:
    async def look() -> Word:
        async with store.transaction() as session:
            now = await evaluations.get(session, seen.id)
        return Word.DROP if now.wish or now.state != EvaluationState.RUNNING else Word.GO_ON

    return look


@asynccontextmanager
async def permitted(look: Callable[[], Awaitable[Word]]) -> AsyncIterator[Permit]:
    """Cancel what the block waits for once `look` says that it is to be dropped; the block then
    ends without an error."""
    task = asyncio.current_task()
    assert task is not None
    permit = Permit()
    watcher = asyncio.create_task(_watch(look, permit, task))
    try:
        yield permit
    except asyncio.CancelledError:
        if not permit.is_dropped or task.uncancel():  # somebody else wants this task to end
            raise
        logger.info("work was dropped: it was cancelled, or has gone on without this task")
    finally:
        watcher.cancel()


async def _watch(
    look: Callable[[], Awaitable[Word]], permit: Permit, task: asyncio.Task[None]
) -> None:
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            if permit.hear(await look()):
                task.cancel()
                return
        except UpstreamUnavailable as error:
            logger.warning("not known whether to go on: %s", error.message)
