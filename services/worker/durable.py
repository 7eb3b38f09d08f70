"""What the engines gave outlasts a database that is away for a moment.

An answer that is only in memory is lost with its task, and costs the engine a second call. So
writing it is tried again for AWAY_SECONDS, which a lease outlasts. Such a write must be one that
may happen twice: the database may go away after it has committed and before it says so.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.clients.http import attempts
from rewardloop.store import Store

AWAY_SECONDS = 30.0
"""A restart of Postgres takes some seconds; a lease lasts 60."""

T = TypeVar("T")


async def stored(store: Store, write: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `write` returns, once its transaction has committed.

    Raises:
        UpstreamUnavailable: the database stayed away.
    """
    async for attempt in attempts(AWAY_SECONDS):
        with attempt:
            async with store.transaction() as session:
                return await write(session)
    raise AssertionError("unreachable: tenacity re-raises")
