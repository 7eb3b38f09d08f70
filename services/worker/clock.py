"""The reconciler's clock: a thread of the controller's process.

It is no Celery task, so neither a broker that is away nor a long step of the controller delays
it, and it ends with its process. It has an event loop, a store and a Celery app of its own,
since all of them belong to one thread.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.queue import make_app
from rewardloop.store import Store
from services.worker import reconcile

logger = logging.getLogger("rewardloop.worker")

RECONCILE_SECONDS = 2.0


@contextmanager
def ticking(settings: Settings) -> Iterator[None]:
    """Reconcile every RECONCILE_SECONDS while the block runs."""
    over = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_tick(settings, over)), name="reconciler", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=2 * RECONCILE_SECONDS)


async def _tick(settings: Settings, over: threading.Event) -> None:
    store = Store(settings.database_url.get_secret_value(), pool_size=2)
    app = make_app(settings)
    try:
        while not over.is_set():
            await _reconcile(store, app)
            await asyncio.to_thread(over.wait, RECONCILE_SECONDS)
    finally:
        await store.close()


async def _reconcile(store: Store, app: Celery) -> None:
    """The clock outlives any error: the next tick may do better."""
    try:
        await reconcile.run(store, app)
    except RewardloopError as error:
        logger.warning("reconcile: %s", error.message)
    except Exception:
        logger.exception("reconcile failed; tried again in %.0f s", RECONCILE_SECONDS)
