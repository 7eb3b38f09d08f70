"""Work beside a worker's tasks: a thread of the process, with an event loop and a store of its own.

It ends with its process. Celery runs one task at a time, so whatever must go on between or during
tasks has no other place.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from rewardloop.config import Settings
from rewardloop.store import Store

Work = Callable[[Store, threading.Event], Awaitable[None]]
"""Goes on until the event is set."""


@contextmanager
def beside(name: str, settings: Settings, work: Work, *, end_seconds: float) -> Iterator[None]:
    """Do `work` while the block runs; at its end wait for `end_seconds` at most."""
    over = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_with_store(settings, work, over)), name=name, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=end_seconds)


async def _with_store(settings: Settings, work: Work, over: threading.Event) -> None:
    store = Store(settings.database_url.get_secret_value(), pool_size=2)
    try:
        await work(store, over)
    finally:
        await store.close()
