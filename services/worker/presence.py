"""Says in Postgres that a worker is there for roll-out tasks, from its start to its end.

A thread of its own, since nothing runs on a worker's event loop between two tasks. Where Postgres
is away, the worker is nobody until it is back.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rewardloop.config import Settings
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import Store
from rewardloop.store.sessions import WORKER

logger = logging.getLogger("rewardloop.worker")

RETRY_SECONDS = 2.0
END_SECONDS = 5.0


@contextmanager
def present(settings: Settings) -> Iterator[None]:
    """Be one of the workers that `rollout.num_tasks: auto` counts, for the block."""
    over = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_be_there(settings, over)), name="presence", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=END_SECONDS)


async def _be_there(settings: Settings, over: threading.Event) -> None:
    store = Store(settings.database_url.get_secret_value())
    while not over.is_set():
        try:
            async with store.working(WORKER, shared=True):
                await asyncio.to_thread(over.wait)
        except UpstreamUnavailable as error:
            logger.warning("not counted among the workers yet: %s", error.message)
            await asyncio.to_thread(over.wait, RETRY_SECONDS)
