"""Says in Postgres that a worker is there for roll-out tasks, from its start to its end.

Beside its tasks (see `beside`), since nothing runs on a worker's event loop between two of them.
Where Postgres is away, the worker is nobody until it is back.
"""

import asyncio
import logging
import threading
from contextlib import AbstractContextManager

from rewardloop.config import Settings
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import Store
from rewardloop.store.sessions import WORKER
from services.worker.beside import beside

logger = logging.getLogger("rewardloop.worker")

RETRY_SECONDS = 2.0
END_SECONDS = 5.0


def present(settings: Settings) -> AbstractContextManager[None]:
    """Be one of the workers that `rollout.num_tasks: auto` counts, for the block."""
    return beside("presence", settings, _be_there, end_seconds=END_SECONDS)


async def _be_there(store: Store, over: threading.Event) -> None:
    while not over.is_set():
        try:
            async with store.working(WORKER, shared=True):
                await asyncio.to_thread(over.wait)
        except UpstreamUnavailable as error:
            logger.warning("not counted among the workers yet: %s", error.message)
            await asyncio.to_thread(over.wait, RETRY_SECONDS)
