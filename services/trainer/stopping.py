"""A training that is asked to stop while it runs: the wish goes from Postgres to the child.

The child looks for a file beside its saved states after every step. A pause has no deadline:
the child ends its step and saves. A cancel has one, behind which the child is ended.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import StopWish
from rewardloop.store import Store, training
from rewardloop.store.models import TrainingJob
from services.trainer.saved_state import States

logger = logging.getLogger("rewardloop.trainer")

POLL_SECONDS = 1.0
CANCEL_SECONDS = 7.0
"""With POLL_SECONDS and the end of the child, a cancel frees the trainer within 10 seconds."""


class Stopped(Exception):
    """The job's training stopped because it was asked to."""


@asynccontextmanager
async def stopped_when_asked(store: Store, job: TrainingJob, states: States) -> AsyncIterator[None]:
    """While the body trains, hand the wish to stop to its child.

    Raises:
        Stopped: it was cancelled and did not stop in time, so the body was.
    """
    work = asyncio.current_task()
    assert work is not None
    is_forced = asyncio.Event()
    states.ask_to_stop(False)
    watcher = asyncio.create_task(_watch(store, job, states, work, is_forced))
    try:
        yield
    except asyncio.CancelledError:
        if is_forced.is_set() and work.uncancel() == 0:
            raise Stopped from None
        raise
    finally:
        watcher.cancel()
        states.ask_to_stop(False)


async def _watch(
    store: Store,
    job: TrainingJob,
    states: States,
    work: asyncio.Task[object],
    is_forced: asyncio.Event,
) -> None:
    cancelled_at: float | None = None
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            async with store.transaction() as session:
                is_ours, how = await training.wish(session, job)
        except UpstreamUnavailable:
            continue
        if not is_ours:
            logger.warning("job %d was taken by another trainer, or its iteration is over", job.id)
            work.cancel()
            return
        if states.stop_wanted != (how is not None):
            states.ask_to_stop(how is not None)
        if how is not StopWish.CANCEL:
            cancelled_at = None
            continue
        cancelled_at = cancelled_at or time.monotonic()
        if time.monotonic() - cancelled_at >= CANCEL_SECONDS:
            is_forced.set()
            work.cancel()
            return
