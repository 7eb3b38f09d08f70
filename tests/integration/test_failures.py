"""Failures that last, and controllers that come late: what ends an iteration, and what does not."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from rewardloop.config import RunConfig
from rewardloop.errors import Conflict, NotFound, SwapFailed
from rewardloop.records import Phase
from rewardloop.store import failures, iterations, runs, training
from services.worker.improve import Improving
from services.worker.swap import bring_to
from tests.integration.test_advance import stands, until_trained


@pytest.fixture
async def ready(world: Any) -> Any:
    """A world with a base version and three prompts; no service runs yet."""
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


async def test_a_replica_that_stays_down_fails_the_iteration(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (only,) = await ready.new_run()
    first = (await ready.advance(only)).failing_since
    assert first is not None
    again = await ready.advance(only)
    assert (stands(again), again.failing_since) == (("running", "prepare"), first)
    monkeypatch.setattr(failures, "MAX_FAILING", datetime.now(UTC) - first)
    failed = await ready.advance(only)
    assert failed.state == "failed"
    assert ready.settings.generator_urls[0] in failed.error


async def test_a_night_without_a_database_is_no_night_of_failures(ready: Any) -> None:
    """A stack that was stopped while something failed has its hour again when it starts."""
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.rows("UPDATE iterations SET failing_since = now() - interval '1 day' RETURNING 1")
    waiting = await ready.advance(only)
    assert stands(waiting) == ("running", "prepare")
    started = await ready.value("SELECT pg_postmaster_start_time()")
    assert waiting.failing_since == started


async def test_an_error_that_no_code_foresaw_is_recorded_and_ends_the_iteration_in_time(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody counts would be tried for ever, with the engines held."""
    (only,) = await ready.new_run()

    async def broken(*_: Any) -> None:
        raise KeyError("weights")

    monkeypatch.setattr("services.worker.steps.bring_to", broken)
    with pytest.raises(KeyError):
        await ready.advance(only)
    assert stands(await ready.iteration(only)) == ("running", "prepare")
    (event,) = await ready.rows("SELECT payload FROM events WHERE kind = 'iteration.retry'")
    assert event["payload"]["detail"] == "KeyError: 'weights'"
    monkeypatch.setattr(failures, "MAX_FAILING", timedelta(0))
    with pytest.raises(KeyError):
        await ready.advance(only)
    failed = await ready.iteration(only)
    assert (failed.state, failed.error) == ("failed", "KeyError: 'weights'")
    assert failed.error_kind == "unexpected"


async def test_a_failed_training_job_fails_its_iteration_with_its_reason(ready: Any) -> None:
    ready.serve()
    first, second = await ready.new_run(count=2)
    await ready.advance(first)
    await ready.roll_out(first)
    await ready.advance(first)
    async with ready.store.transaction() as session:
        job = await training.lease(session, "test", 60)
        assert job is not None
        await training.fail(session, job, "the loss is NaN")
    failed = await ready.advance(first)
    assert stands(failed) == ("failed", "train")
    assert "the loss is NaN" in failed.error
    assert stands(await ready.advance(second)) == ("queued", "waiting")
    assert await ready.serving() == "base"


async def overtaken(world: Any, iteration_id: UUID) -> None:
    """Another controller takes the iteration, which is in its swap, to its end."""
    async with world.store.transaction() as session:
        current = await iterations.get(session, iteration_id, lock=True)
        await iterations.succeed(session, current)


async def test_a_controller_that_comes_late_decides_nothing(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock died with its connection while it swapped, and another one finished."""
    ready.serve()
    (only,) = await ready.new_run(
        prompts={"allow_evaluation_prompts": True}, evaluation={"dataset": "seed"}
    )
    await until_trained(ready, only)

    async def slowly(*args: Any) -> Any:
        found = await bring_to(*args)
        await overtaken(ready, only)
        return found

    monkeypatch.setattr("services.worker.steps.bring_to", slowly)
    late = await ready.advance(only)
    assert (stands(late), late.error, late.failing_since) == (("succeeded", "done"), None, None)
    assert await ready.serving() == "base"
    assert await ready.rows("SELECT * FROM evaluations") == []


async def test_the_failure_of_a_controller_that_comes_late_fails_nothing(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve()
    (only,) = await ready.new_run()

    async def fails_late(*_: Any) -> None:
        async with ready.store.transaction() as session:
            current = await iterations.get(session, only, lock=True)
            await iterations.enter(session, current, Phase.ROLLOUT)
        raise SwapFailed("the version before is loaded no more")

    monkeypatch.setattr("services.worker.steps.bring_to", fails_late)
    assert stands(await ready.advance(only)) == ("running", "rollout")
    assert (await ready.iteration(only)).error is None


async def test_what_is_decided_together_is_undone_together(ready: Any) -> None:
    """The evaluations, the report and the jobs of a step that comes late are not stored."""
    ready.serve()
    (only,) = await ready.new_run(
        prompts={"allow_evaluation_prompts": True}, evaluation={"dataset": "seed"}
    )
    await ready.advance(only)
    await ready.roll_out(only)
    async with ready.store.transaction() as session:
        seen = await iterations.get(session, only)
        config = RunConfig.model_validate((await runs.get(session, seen.run_id)).config)
    seen.phase = "pairing"  # where the iteration is not, by now
    late = Improving(ready.store, ready.settings, config, seen)
    with pytest.raises(Conflict, match="has gone on from pairing to rollout"):
        await late.of(Phase.PAIRING)()
    assert await ready.rows("SELECT * FROM training_jobs") == []
    assert await ready.rows("SELECT * FROM preference_pairs") == []
    assert "pairing" not in (await ready.iteration(only)).report


async def test_no_iteration_is_queued_behind_one_that_failed(ready: Any) -> None:
    (first,) = await ready.new_run()
    await ready.in_rollout(first)
    async with ready.store.transaction() as session:
        current = await iterations.get(session, first, lock=True)
        await iterations.fail(session, current, NotFound("for this test"))
    async with ready.store.transaction() as session:
        with pytest.raises(Conflict, match=f"iteration 1 of this run failed.* retry {first}"):
            await runs.add_iterations(session, current.run_id, 1)


async def test_a_failed_iteration_leaves_no_job_to_train(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    await ready.advance(only)
    async with ready.store.transaction() as session:
        current = await iterations.get(session, only, lock=True)
        await iterations.fail(session, current, NotFound("for this test"))
    async with ready.store.transaction() as session:
        assert await training.lease(session, "test", 60) is None
    (job,) = await ready.rows("SELECT state, error FROM training_jobs")
    assert job == {"state": "failed", "error": "for this test"}
