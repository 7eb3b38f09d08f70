"""Start the trainer service: `python -m services.trainer`."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from celery import Celery
from prometheus_client import start_http_server

from rewardloop import telemetry
from rewardloop.config import Settings, load_settings
from rewardloop.errors import UpstreamUnavailable
from rewardloop.process.exits import known_errors_told
from rewardloop.queue import make_app
from rewardloop.store import Store, training
from services.trainer.job import LEASE_SECONDS, work_on

logger = logging.getLogger("rewardloop.trainer")

POLL_SECONDS = 0.5


async def serve(settings: Settings) -> None:
    """Take jobs, one at a time, for ever."""
    store = Store(settings.database_url.get_secret_value())
    app = make_app(settings)
    owner = f"{training.LOCKED}{socket.gethostname()}:{os.getpid()}"
    try:
        async with _alive(store, owner):
            while True:
                if not await _take_one(store, app, settings, owner):
                    await asyncio.sleep(POLL_SECONDS)
    finally:
        await store.close()


@asynccontextmanager
async def _alive(store: Store, owner: str) -> AsyncIterator[None]:
    """Hold the session lock that says that the trainer lives; waits for Postgres."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(store.working(owner))
                break
            except UpstreamUnavailable as error:
                logger.warning("%s", error.message)
                await asyncio.sleep(POLL_SECONDS)
        yield


async def _take_one(store: Store, app: Celery, settings: Settings, owner: str) -> bool:
    """Work on the next job; returns whether one came to its end."""
    try:
        async with store.transaction() as session:
            job = await training.lease(session, owner, LEASE_SECONDS)
        if job is not None:
            await asyncio.create_task(work_on(store, app, settings, job, owner))
            return True
    except UpstreamUnavailable as error:
        logger.warning("%s", error.message)
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]
            raise
        # else the job was cancelled alone: its lease was lost
    return False


def main() -> None:
    with known_errors_told():
        settings = load_settings("trainer")
    telemetry.log_json()
    if settings.metrics_port:
        start_http_server(settings.metrics_port)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
