"""A lease is somebody's while its owner's session lock is held, and no longer."""

import asyncio
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import lost_leases, rollouts, sessions
from services.worker import reconcile


@pytest.fixture
async def iteration_id(world: Any, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """An iteration of three prompts in its roll-out, on a Postgres that is no fresh start."""
    monkeypatch.setattr(sessions, "GRACE_SECONDS", 0.0)
    await world.with_base()
    await world.add_prompts("a", "b", "c")
    (made,) = await world.new_run()
    await world.in_rollout(made)
    world.broker.flushall()
    return UUID(str(made))


async def lease(world: Any, iteration_id: UUID, owner: str, count: int) -> None:
    async with world.store.transaction() as session:
        await rollouts.lease(session, iteration_id, owner, count, 600)


async def owners(world: Any) -> list[str]:
    found = await world.rows(
        "SELECT coalesce(lease_owner, 'nobody') AS o FROM iteration_prompts ORDER BY prompt_id"
    )
    return [row["o"] for row in found]


async def test_only_leases_of_the_living_stay(world: Any, iteration_id: UUID) -> None:
    async with world.store.working("alive"):
        await lease(world, iteration_id, "alive", 1)
        await lease(world, iteration_id, "dead", 1)
        await reconcile.run(world.store, world.celery)
        assert await owners(world) == ["alive", "nobody", "nobody"]
    assert world.messages("rollout") == 0  # one task is wanted, and one works
    await reconcile.run(world.store, world.celery)
    assert await owners(world) == ["nobody"] * 3
    assert world.messages("rollout") == 1


async def test_a_killed_process_is_noticed_at_once(world: Any, iteration_id: UUID) -> None:
    program = (
        "import asyncio, sys\nfrom rewardloop.store import Store\n"
        "async def main():\n"
        "    async with Store(sys.argv[1]).working('victim'):\n"
        "        print('works', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    url = world.settings.database_url.get_secret_value()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, url, stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert await victim.stdout.readline() == b"works\n"
    await lease(world, iteration_id, "victim", 2)
    await reconcile.run(world.store, world.celery)
    assert await owners(world) == ["victim", "victim", "nobody"]
    victim.kill()
    await victim.wait()
    async with asyncio.timeout(60):
        while await owners(world) != ["nobody"] * 3:  # Postgres sees the end of a connection
            await reconcile.run(world.store, world.celery)


async def locks(world: Any) -> int:
    """How many session locks are held by others than this query."""
    found = await world.value(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )
    return int(found)


async def lose_connections(world: Any) -> None:
    await world.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )


async def test_a_lock_whose_connection_broke_is_taken_again(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LOOK_SECONDS", 0.05)
    async with world.store.working("holder"):
        await lease(world, iteration_id, "holder", 3)
        await lose_connections(world)
        async with asyncio.timeout(60):
            while await locks(world) != 1:
                await asyncio.sleep(0.02)
        await reconcile.run(world.store, world.celery)
        assert await owners(world) == ["holder"] * 3
    async with asyncio.timeout(60):  # a connection that was lost may end a moment later
        while await locks(world):
            await asyncio.sleep(0.02)


async def test_right_after_the_start_of_postgres_no_lease_is_an_orphan(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder has lost the lock like everybody else, and is about to take it again."""
    await lease(world, iteration_id, "holder", 3)
    monkeypatch.setattr(sessions, "GRACE_SECONDS", 86_400.0)
    await reconcile.run(world.store, world.celery)
    assert await owners(world) == ["holder"] * 3


async def test_once_lost_comes_first_and_twice_lost_last(world: Any, iteration_id: UUID) -> None:
    """Its answers are still kept by the engine; but it may be what ends its workers."""
    await world.rows(
        "UPDATE iteration_prompts SET num_lost_leases = CASE prompt_id WHEN 1 THEN 2 WHEN 3 THEN 1"
        " ELSE 0 END RETURNING 1"
    )
    for owner in ("first", "second", "third"):
        await lease(world, iteration_id, owner, 1)
    assert await owners(world) == ["third", "second", "first"]


async def test_two_of_one_name_cannot_work(world: Any) -> None:
    async with world.store.working("one"):
        with pytest.raises(UpstreamUnavailable, match="still holds the lock of one"):
            async with world.store.working("one"):
                raise AssertionError("both work")
    async with world.store.working("one"):
        pass


async def test_a_task_works_under_its_lock(world: Any, iteration_id: UUID) -> None:
    """A reconciler that looks all the time takes nothing from it."""
    world.serve()
    working = asyncio.create_task(world.roll_out(iteration_id))
    num_taken = 0
    while not working.done():
        async with world.store.transaction() as session:
            num_taken += await lost_leases.take_back_orphans(session)
    await working
    assert num_taken == 0
    assert await world.value("SELECT count(*) FROM judgements") == 3 * 4 * 3
