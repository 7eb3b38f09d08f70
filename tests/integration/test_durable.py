"""What the engines gave outlasts a database that is away for a moment."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import Conflict, UpstreamUnavailable
from services.worker import durable
from services.worker.durable import stored

GONE = OperationalError("COMMIT", None, Exception("server closed the connection unexpectedly"))


class Write:
    """Adds an event of its own; the database goes away under the first `num_lost` of them."""

    def __init__(self, num_lost: int, error: Exception = GONE) -> None:
        self.num_tried = 0
        self._num_lost, self._error = num_lost, error

    async def __call__(self, session: AsyncSession) -> int:
        self.num_tried += 1
        await session.execute(text("INSERT INTO events (kind, payload) VALUES ('tried', '{}')"))
        if self.num_tried <= self._num_lost:
            raise self._error
        return self.num_tried


async def num_events(world: Any) -> int:
    return int(await world.value("SELECT count(*) FROM events WHERE kind = 'tried'"))


async def test_a_write_is_tried_until_the_database_is_back(world: Any) -> None:
    write = Write(num_lost=2)
    assert await stored(world.store, write) == 3
    assert await num_events(world) == 1  # what was half written is not there


async def test_a_database_that_stays_away_is_said_so(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "AWAY_SECONDS", 0.5)
    with pytest.raises(UpstreamUnavailable, match="the database does not answer"):
        await stored(world.store, Write(num_lost=10**6))
    assert await num_events(world) == 0


async def test_another_error_is_not_tried_again(world: Any) -> None:
    write = Write(num_lost=1, error=Conflict("the iteration was cancelled"))
    with pytest.raises(Conflict):
        await stored(world.store, write)
    assert write.num_tried == 1
