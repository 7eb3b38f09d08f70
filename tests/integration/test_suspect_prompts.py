"""Prompts that end the task that works on them."""

from datetime import timedelta
from typing import Any

import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.errors import UpstreamFailed
from rewardloop.store import dead_prompts, lost_leases, pauses, rollouts
from rewardloop.store.lost_leases import MAX_LOST_ALONE
from rewardloop.store.rollouts import SUSPECT_AFTER
from services.generator.stub_faults import Faults
from services.worker import rollout
from tests.integration.doomed import dead, in_rollout, pause_shortly, states


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pause_shortly(monkeypatch)


async def test_a_prompt_that_ends_each_task_is_worked_on_alone_and_dies(world: Any) -> None:
    """A task that ended without a word gave nothing back; its neighbours are not to blame."""
    made = await in_rollout(world, *(f"question {number}" for number in range(4)))
    world.serve()
    num_leased: list[int] = []
    for _ in range(SUSPECT_AFTER):
        async with world.store.transaction() as session:
            num_leased.append(len(await rollouts.lease(session, made, "lost", 4, -1)))
            await lost_leases.take_back_expired(session)
    assert num_leased == [4] * SUSPECT_AFTER
    async with world.store.transaction() as session:
        assert await rollouts.lease(session, made, "careful", 4, 60) == []
    taken: list[list[int]] = []
    lease = rollouts.lease

    async def noted(*args: Any, **kwargs: Any) -> Any:
        found = await lease(*args, **kwargs)
        if found:
            taken.append([prompt.prompt_id for prompt in found])
        return found

    await world.rows("UPDATE iteration_prompts SET state = 'done' WHERE prompt_id < 3 RETURNING 1")
    for _ in range(MAX_LOST_ALONE):
        async with world.store.transaction() as session:
            (lost,) = await rollouts.lease(session, made, "lost", 1, -1, suspects=True)
            await lost_leases.take_back_expired(session)
        assert lost.prompt_id in (3, 4)
        await world.rows(
            "UPDATE iteration_prompts SET num_lost_leases = num_lost_leases + 10"
            " WHERE prompt_id = 4 AND state = 'pending' AND num_lost_leases < 10 RETURNING 1"
        )
    (found,) = await dead(world, made)
    assert (found.prompt_id, found.error_kind) == (3, "worker-lost")
    assert "ended without a word" in found.error
    world.monkeypatch.setattr(rollout.rollouts, "lease", noted)
    await world.roll_out(made)
    assert taken == [[4]]
    assert await states(world) == {"done": 3, "dead": 1}


async def test_suspects_are_worked_on_one_at_a_time(world: Any) -> None:
    made = await in_rollout(world, *(f"question {number}" for number in range(5)))
    engine = world.serve(Faults(latency_seconds=0.05))
    await world.rows(
        "UPDATE iteration_prompts SET num_lost_leases = :n WHERE prompt_id <= 3 RETURNING 1",
        n=SUSPECT_AFTER,
    )
    at_once: list[int] = []
    sample = GeneratorClient.sample

    async def noted(self: GeneratorClient, *args: Any, **named: Any) -> Any:
        at_once.append(engine._num_in_flight)
        return await sample(self, *args, **named)

    world.monkeypatch.setattr(GeneratorClient, "sample", noted)
    await world.roll_out(made)
    assert await states(world) == {"done": 5}
    assert len(at_once) == 5
    assert at_once[2:] == [0, 0, 0]


async def test_a_late_task_counts_no_failure(world: Any) -> None:
    made = await in_rollout(world, "one")
    async with world.store.transaction() as session:
        (slow,) = await rollouts.lease(session, made, "slow", 1, -1)
        await lost_leases.take_back_expired(session)
        await rollouts.lease(session, made, "other", 1, 60)
    async with world.store.transaction() as session:
        error = UpstreamFailed("late")
        assert not await dead_prompts.note_failure(session, made, slow, error, 1, counts=True)
    (row,) = await world.rows("SELECT state, num_attempts, last_error FROM iteration_prompts")
    assert row == {"state": "leased", "num_attempts": 0, "last_error": None}


async def test_a_pause_grows_and_an_error_is_stored_whatever_it_holds(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 2.0)
    made = await in_rollout(world, "one")
    left = []
    for _ in range(2):
        async with world.store.transaction() as session:
            (prompt,) = await rollouts.lease(session, made, "task", 1, 60)
            error = UpstreamFailed("a NUL \x00 and half a pair \ud800")
            await dead_prompts.note_failure(session, made, prompt, error, 3, counts=True)
            assert await rollouts.lease(session, made, "task", 1, 60) == []
        left.append(await world.value("SELECT not_before - now() FROM iteration_prompts"))
        await world.rows("UPDATE iteration_prompts SET not_before = now() RETURNING 1")
    assert timedelta(seconds=1) < left[0] <= timedelta(seconds=2)
    assert timedelta(seconds=9) < left[1] <= timedelta(seconds=10)
    assert "\N{SYMBOL FOR NULL}" in await world.value("SELECT last_error FROM iteration_prompts")
