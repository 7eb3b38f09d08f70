"""A training that is asked to stop, to go on, or that failed and is tried again."""

from typing import Any

import pytest

from rewardloop.errors import TrainingDiverged
from rewardloop.records import StopWish
from rewardloop.store import training


@pytest.fixture
async def iteration_id(world: Any) -> Any:
    """An iteration whose training is queued."""
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    world.serve()
    (only,) = await world.new_run()
    await world.judged(only, {1: [[1.0], [4.0]]})
    await world.advance(only)
    return only


async def lease(world: Any) -> Any:
    async with world.store.transaction() as session:
        return await training.lease(session, "me", 60)


async def ask(world: Any, iteration_id: Any, how: StopWish) -> None:
    async with world.store.transaction() as session:
        await training.ask_to_stop(session, iteration_id, how)


async def go_on(world: Any, iteration_id: Any) -> None:
    async with world.store.transaction() as session:
        await training.ask_to_go_on(session, iteration_id)


async def state(world: Any) -> str:
    return str(await world.value("SELECT state FROM training_jobs"))


async def expire(world: Any) -> None:
    await world.rows(
        "UPDATE training_jobs SET lease_expires_at = now() - interval '1 s' RETURNING 1"
    )


@pytest.mark.parametrize(
    ("how", "after"), [(StopWish.PAUSE, "paused"), (StopWish.CANCEL, "cancelled")]
)
async def test_a_job_that_no_trainer_holds_stops_at_once(
    world: Any, iteration_id: Any, how: StopWish, after: str
) -> None:
    for _ in range(2):
        await ask(world, iteration_id, how)
        assert await state(world) == after
        assert await lease(world) is None
    for _ in range(2):
        await go_on(world, iteration_id)
        assert await state(world) == "queued"
    assert await lease(world) is not None


async def test_a_job_that_is_held_is_ended_by_its_trainer(world: Any, iteration_id: Any) -> None:
    job = await lease(world)
    await ask(world, iteration_id, StopWish.PAUSE)
    world.broker.flushall()
    async with world.store.transaction() as session:
        assert await training.is_held(session, iteration_id)
        assert await training.wish(session, job) == (True, StopWish.PAUSE)
        await training.end_stopped(session, job)
        assert not await training.is_held(session, iteration_id)
        assert await training.wish(session, job) == (False, None)
    assert await state(world) == "paused"
    (message,) = await world.rows("SELECT subject_id FROM outbox")
    assert message["subject_id"] == iteration_id


async def test_a_cancel_is_not_softened_and_a_pause_can_become_a_cancel(
    world: Any, iteration_id: Any
) -> None:
    await ask(world, iteration_id, StopWish.PAUSE)
    await ask(world, iteration_id, StopWish.CANCEL)
    await ask(world, iteration_id, StopWish.PAUSE)
    assert await state(world) == "cancelled"


async def test_a_wish_that_is_taken_back_while_the_child_stops_queues_the_job(
    world: Any, iteration_id: Any
) -> None:
    job = await lease(world)
    await ask(world, iteration_id, StopWish.PAUSE)
    await go_on(world, iteration_id)
    async with world.store.transaction() as session:
        await training.end_stopped(session, job)
    assert await state(world) == "queued"


async def test_a_job_whose_trainer_died_is_stopped_and_not_taken_again(
    world: Any, iteration_id: Any
) -> None:
    await lease(world)
    await ask(world, iteration_id, StopWish.CANCEL)
    assert await state(world) == "running"
    await expire(world)
    assert await lease(world) is None
    assert await state(world) == "cancelled"


async def test_a_job_whose_trainer_died_before_stops_with_the_wish(
    world: Any, iteration_id: Any
) -> None:
    await lease(world)
    await expire(world)
    await ask(world, iteration_id, StopWish.PAUSE)
    assert await state(world) == "paused"


async def test_a_failed_job_keeps_its_kind_and_can_be_tried_again(
    world: Any, iteration_id: Any
) -> None:
    job = await lease(world)
    async with world.store.transaction() as session:
        await training.fail(session, job, "the loss is nan", "diverged")
    async with world.store.transaction() as session:
        failed = await training.of(session, iteration_id, job.stage)
        assert isinstance(training.failure_of(failed), TrainingDiverged)
    failed_iteration = await world.advance(iteration_id)
    assert (failed_iteration.error, failed_iteration.error_kind) == ("the loss is nan", "diverged")
    await go_on(world, iteration_id)
    again = await lease(world)
    assert (again.error, again.error_kind, again.num_attempts) == (None, None, 2)


async def test_an_attempt_that_goes_on_takes_over_the_metrics_before_it(
    world: Any, iteration_id: Any
) -> None:
    job = await lease(world)
    async with world.store.transaction() as session:
        for step in (1, 2, 3):
            await training.add_metrics(session, job, step, {"loss": 1.0 / step})
    await expire(world)
    again = await lease(world)
    async with world.store.transaction() as session:
        for _ in range(2):
            await training.keep_metrics(session, again, 2)
    async with world.store.transaction() as session:
        assert await training.metrics_of(session, iteration_id) == [
            {"step": 1, "loss": 1.0},
            {"step": 2, "loss": 0.5},
        ]


async def test_what_is_not_finite_is_stored_as_a_word(world: Any, iteration_id: Any) -> None:
    job = await lease(world)
    values = {"loss": float("nan"), "a": float("inf"), "b": -float("inf"), "c": 0.0, "d": True}
    async with world.store.transaction() as session:
        await training.add_metrics(session, job, 1, values)
    async with world.store.transaction() as session:
        (row,) = await training.metrics_of(session, iteration_id)
    assert row == {"step": 1, "loss": "nan", "a": "inf", "b": "-inf", "c": 0.0, "d": True}
