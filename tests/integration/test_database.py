"""How the store meets a Postgres that is away, and one that has no connection left."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import Store, database


@pytest.fixture
def away(unused_url: Callable[[], str]) -> Store:
    """A store of a database at whose address nothing listens."""
    return Store(unused_url().replace("http://", "postgresql+psycopg://me:secret@") + "/none")


async def test_a_database_that_is_away_may_come_back(away: Store) -> None:
    with pytest.raises(UpstreamUnavailable, match="REWARDLOOP_DATABASE_URL"):
        async with away.transaction() as session:
            await session.execute(text("SELECT 1"))
    with pytest.raises(UpstreamUnavailable, match="REWARDLOOP_DATABASE_URL"):
        async with away.advisory_lock("one"):
            raise AssertionError("nobody can hold it")


async def test_a_lock_whose_connection_is_lost_is_one_error_that_callers_know(world: Any) -> None:
    async def lose_it() -> None:
        async with world.store.advisory_lock("one") as held:
            assert held
            await world.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )

    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        await lose_it()
    async with world.store.advisory_lock("one") as held:
        assert held


async def test_a_connection_that_does_not_come_free_is_an_error_that_callers_know(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper of leases waits and tries again; another error would end it."""
    store = Store(world.settings.database_url.get_secret_value(), pool_size=1)
    monkeypatch.setattr(store.engine.pool, "_timeout", 0.01)
    monkeypatch.setattr(store.engine.pool, "_max_overflow", 0)
    async with store.advisory_lock("one"):
        with pytest.raises(UpstreamUnavailable, match="QueuePool limit"):
            async with store.transaction() as session:
                await session.execute(text("SELECT 1"))
    await store.close()


async def test_a_silent_host_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel takes the connection, and nobody says a word."""
    monkeypatch.setitem(database.LIBPQ, "connect_timeout", 2)  # libpq knows no less

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = Store(f"postgresql+psycopg://me:secret@127.0.0.1:{port}/none")
        with pytest.raises(UpstreamUnavailable, match="timeout"):
            async with asyncio.timeout(120), store.transaction() as session:
                await session.execute(text("SELECT 1"))
