"""Who is alive: each task that holds leases holds a session lock of Postgres meanwhile.

The lock is an advisory one, under the name that the leases give as their owner, on a
connection of its own. Postgres frees it when that connection ends: at once where the process
died, and within half a minute where its machine is gone without a word. So a lease whose
owner's lock is free is nobody's, and can be taken back without waiting until it runs out.

When Postgres restarts, every lock is gone and every task takes its own again within
LOOK_SECONDS or so. Until GRACE_SECONDS after the start no lease is called an orphan.

Each worker holds a lock besides, WORKER, which it shares with the other ones: as many as hold
it are there.

A connection that breaks alone, while Postgres stays up, may cost its holder the leases: the
reconciler may see the lock free before it is taken again. The fencing tokens keep that harmless.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg import Error as PostgresError
from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from rewardloop.errors import UpstreamUnavailable

logger = logging.getLogger("rewardloop.store")

LOOK_SECONDS = 1.0
"""How often a holder looks whether its connection lives."""
ANSWER_SECONDS = 10.0
"""A connection that says nothing for so long is given up."""
RETRY_SECONDS = 0.2
GRACE_SECONDS = 6.0
PREFIX = "rewardloop:working:"
WORKER = "worker"
"""The name under which every worker that takes roll-out tasks holds a shared lock."""

OF_THE_SERVER = {
    "tcp_keepalives_idle": "10",  # seconds
    "tcp_keepalives_interval": "5",  # seconds
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}
"""By these the server notices that the holder's machine is gone, and frees the lock."""


class SessionLock:
    """One name's lock, on one connection at a time."""

    def __init__(self, conninfo: str, name: str, *, shared: bool = False, **libpq: Any) -> None:
        """A `shared` one may be held by many."""
        self._conninfo = conninfo
        self._name = name
        self._taking = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
        self._libpq = libpq
        self._connection: AsyncConnection[Any] | None = None

    async def take(self) -> None:
        """
        Raises:
            UpstreamUnavailable: Postgres cannot be reached, or still keeps the lock for a
                connection that broke.
        """
        await self.close()
        try:
            self._connection = await AsyncConnection.connect(
                self._conninfo, autocommit=True, **self._libpq
            )
            for name, value in OF_THE_SERVER.items():
                await self._connection.execute(f"SET {name} = {value}")
            cursor = await self._connection.execute(
                f"SELECT {self._taking}(hashtextextended(%s, 0))", [PREFIX + self._name]
            )
            found = await cursor.fetchone()
        except PostgresError as error:
            raise UpstreamUnavailable(
                f"the database does not answer ({error}); check REWARDLOOP_DATABASE_URL and that "
                "Postgres runs"
            ) from error
        if found is None or not found[0]:
            raise UpstreamUnavailable(
                f"Postgres still holds the lock of {self._name} for a connection that broke"
            )

    async def keep(self) -> None:
        """Watch the connection for ever; where it breaks, take the lock again on another."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not await self._lives():
                logger.warning("%s lost its session lock and takes it again", self._name)
                await self._take_again()

    async def _lives(self) -> bool:
        assert self._connection is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._connection.execute("SELECT 1")
        except (PostgresError, TimeoutError):
            return False
        return True

    async def _take_again(self) -> None:
        while True:
            try:
                await self.take()
            except UpstreamUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Free the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@asynccontextmanager
async def held(lock: SessionLock) -> AsyncIterator[None]:
    """Hold the lock for the block, as well as the connection to Postgres allows.

    Raises:
        UpstreamUnavailable: it could not be taken at first.
    """
    keeper = None
    try:
        await lock.take()
        keeper = asyncio.create_task(lock.keep())
        yield
    finally:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await lock.close()


_OF_NAMES = """locktype = 'advisory' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::bigint << 32) | objid::bigint"""
"""Of locks in `pg_locks`; a name's hash follows."""


async def num_workers(session: AsyncSession) -> int:
    """How many workers take roll-out tasks, busy ones included."""
    found = await session.scalar(
        text(f"SELECT count(*) FROM pg_locks WHERE {_OF_NAMES} = hashtextextended(:name, 0)"),
        {"name": PREFIX + WORKER},
    )
    return int(found or 0)


def has_no_living_owner(owner: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Whether the lock of the name in `owner` is free, in a WHERE clause."""
    column = f"{owner.class_.__tablename__}.{owner.key}"
    return text(
        f"""(now() > pg_postmaster_start_time() + make_interval(secs => {GRACE_SECONDS})
        AND NOT EXISTS (
            SELECT FROM pg_locks
            WHERE {_OF_NAMES}
                    = hashtextextended('{PREFIX}' || {column}, 0)
        ))"""
    )  # type: ignore[return-value]
