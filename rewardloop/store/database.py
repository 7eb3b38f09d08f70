"""Connections and transactions."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from rewardloop.errors import InvalidInput, UpstreamUnavailable
from rewardloop.store.sessions import SessionLock, held

DRIVER = "postgresql+psycopg"

LIBPQ = {
    "connect_timeout": 10,  # seconds
    # A host that is gone without a word is noticed within a minute, not within two hours.
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds
}


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
        self.engine = create_async_engine(
            url, pool_size=pool_size, pool_pre_ping=True, connect_args=LIBPQ
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction that commits at the end of the block and rolls back on an error.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        with _reached():
            async with self._sessions.begin() as session:
                yield session

    @asynccontextmanager
    async def advisory_lock(self, name: str) -> AsyncIterator[bool]:
        """Hold the cluster-wide lock `name` for the block; yields False if another holds it.

        Postgres releases it when this process dies.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        key = {"name": f"rewardloop:{name}"}
        with _reached():
            async with self.engine.connect() as raw:
                connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
                held = bool(
                    await connection.scalar(
                        text("SELECT pg_try_advisory_lock(hashtext(:name))"), key
                    )
                )
                try:
                    yield held
                finally:
                    if held:
                        await connection.execute(
                            text("SELECT pg_advisory_unlock(hashtext(:name))"), key
                        )

    @asynccontextmanager
    async def working(self, name: str, *, shared: bool = False) -> AsyncIterator[None]:
        """Hold the session lock of `name` for the block: leases of this owner are somebody's.
        One that is `shared` may be held by many at once.

        The lock has a connection of its own. Where that breaks, it is taken again on another.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        conninfo = make_url(self._url).set(drivername="postgresql")
        address = conninfo.render_as_string(hide_password=False)
        lock = SessionLock(address, name, shared=shared, **LIBPQ)
        async with held(lock):
            yield

    async def migrate(self) -> None:
        """Bring the schema to this version of the code.

        Raises:
            UpstreamUnavailable: Postgres cannot be reached.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["database_url"] = self._url
        with _reached():
            await asyncio.to_thread(command.upgrade, config, "head")

    async def close(self) -> None:
        await self.engine.dispose()


@contextmanager
def _reached() -> Iterator[None]:
    """
    Raises:
        UpstreamUnavailable: the block did not get to Postgres, or lost it.
    """
    try:
        yield
    except (OperationalError, InterfaceError, NoConnectionFree) as error:
        raise UpstreamUnavailable(
            f"the database does not answer ({getattr(error, 'orig', error)}); check "
            "REWARDLOOP_DATABASE_URL and that Postgres runs"
        ) from error
