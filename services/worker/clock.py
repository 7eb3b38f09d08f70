"""The reconciler's clock: a thread of the controller's process (see `beside`).

It is no Celery task, so neither a broker that is away nor a long step of the controller delays
it. It has a Celery app of its own, which belongs to one thread.
"""

import asyncio
import logging
import threading
from contextlib import AbstractContextManager

from celery import Celery

from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.queue import make_app
from rewardloop.store import Store
from services.worker import reconcile
from services.worker.beside import beside

logger = logging.getLogger("rewardloop.worker")

RECONCILE_SECONDS = 2.0


def ticking(settings: Settings) -> AbstractContextManager[None]:
    """Reconcile every RECONCILE_SECONDS while the block runs."""

    async def tick(store: Store, over: threading.Event) -> None:
        app = make_app(settings)
        while not over.is_set():
            await _reconcile(store, app)
            await asyncio.to_thread(over.wait, RECONCILE_SECONDS)

    return beside("reconciler", settings, tick, end_seconds=2 * RECONCILE_SECONDS)


async def _reconcile(store: Store, app: Celery) -> None:
    """The clock outlives any error: the next tick may do better."""
    try:
        await reconcile.run(store, app)
    except RewardloopError as error:
        logger.warning("reconcile: %s", error.message)
    except Exception:
        logger.exception("reconcile failed; tried again in %.0f s", RECONCILE_SECONDS)
