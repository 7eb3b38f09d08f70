"""Connections and transactions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from rewardloop.errors import InvalidInput, UpstreamUnavailable

DRIVER = "postgresql+psycopg"


class Store:
    """One process's way to Postgres. Bound to the event loop that first uses it.

    Raises:
        InvalidInput: the address is none of Postgres by psycopg; never with its value.
    """

    def __init__(self, database_url: str, *, pool_size: int = 5) -> None:
        self._url = database_url
        try:
            url = make_url(database_url)
        except (ArgumentError, ValueError):
            url = None
        if url is None or url.drivername != DRIVER:
            raise InvalidInput(
                "REWARDLOOP_DATABASE_URL is not of the form "
                f"{DRIVER}://user:password@host:port/name; correct it"
            )
        self.engine = create_async_engine(url, pool_size=pool_size, pool_pre_ping=True)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction that commits at the end of the block and rolls back on an error.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except OperationalError as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def advisory_lock(self, name: str) -> AsyncIterator[bool]:
        """Hold the cluster-wide lock `name` for the block; yields False if another holds it.

        Postgres releases it when this process dies.
        """
        key = {"name": f"rewardloop:{name}"}
        async with self.engine.connect() as raw:
            connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
            held = bool(
                await connection.scalar(text("SELECT pg_try_advisory_lock(hashtext(:name))"), key)
            )
            try:
                yield held
            finally:
                if held:
                    await connection.execute(
                        text("SELECT pg_advisory_unlock(hashtext(:name))"), key
                    )

    async def migrate(self) -> None:
        """Bring the schema to this version of the code.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["database_url"] = self._url
        try:
            await asyncio.to_thread(command.upgrade, config, "head")
        except OperationalError as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        await self.engine.dispose()


def _unavailable(error: OperationalError) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"the database does not answer ({error.orig}); check REWARDLOOP_DATABASE_URL "
        "and that Postgres runs"
    )
