"""The controller takes iterations through their phases; only the training is simulated."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop import checkpoints
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import RunConfig
from rewardloop.embedded.process import free_port
from rewardloop.errors import Conflict, NotFound, SwapFailed, UpstreamUnavailable
from rewardloop.records import Phase
from rewardloop.store import failures, iterations, runs, training
from rewardloop.store.models import Iteration
from services.generator.stub_engine import Faults
from services.worker.improve import Improving
from services.worker.swap import bring_to


@pytest.fixture
async def ready(world: Any) -> Any:
    """A world with a base version and three prompts; no service runs yet."""
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


def stands(iteration: Iteration) -> tuple[str, str]:
    return iteration.state, iteration.phase


async def until_trained(world: Any, iteration_id: UUID) -> str:
    """Take a queued iteration to the end of its training; returns the new version."""
    assert stands(await world.advance(iteration_id)) == ("running", "rollout")
    await world.roll_out(iteration_id)
    assert stands(await world.advance(iteration_id)) == ("running", "train")
    return await world.train(iteration_id)


async def loaded(world: Any, replica: int = 0) -> str:
    """The version that a replica says it holds."""
    key = world.settings.admin_key.get_secret_value()
    async with ReplicaAdmin(world.settings.generator_urls[replica], key) as admin:
        return (await admin.weights())["version"]


async def test_an_iteration_goes_from_phase_to_phase(ready: Any) -> None:
    ready.serve()
    first, second = await ready.new_run(count=2)
    assert stands(await ready.iteration(first)) == ("queued", "waiting")
    assert stands(await ready.advance(second)) == ("queued", "waiting")  # not its turn

    assert stands(await ready.advance(first)) == ("running", "rollout")
    assert stands(await ready.advance(first)) == ("running", "rollout")  # nothing is sampled yet
    await ready.roll_out(first)
    assert stands(await ready.advance(first)) == ("running", "train")
    assert stands(await ready.advance(first)) == ("running", "train")  # nobody trained yet
    pairs = await ready.rows("SELECT * FROM preference_dataset")
    assert 1 <= len(pairs) <= 3
    assert all(pair["margin"] > 0 and pair["chosen"] != pair["rejected"] for pair in pairs)

    version = await ready.train(first)
    iteration = await ready.advance(first)
    assert stands(iteration) == ("succeeded", "done")
    assert (iteration.base_version_id, iteration.new_version_id) == ("base", version)
    assert await ready.serving() == version
    assert await loaded(ready) == version
    spans = await ready.rows("SELECT phase, ended_at FROM phase_spans ORDER BY started_at")
    phases = ["prepare", "rollout", "pairing", "train", "swap"]
    assert [span["phase"] for span in spans] == phases
    assert all(span["ended_at"] is not None for span in spans)


async def test_the_next_iteration_samples_from_the_new_version(ready: Any) -> None:
    ready.serve()
    first, second = await ready.new_run(count=2)
    version = await until_trained(ready, first)
    await ready.advance(first)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    assert (await ready.iteration(second)).base_version_id == version
    await ready.roll_out(second)
    responses = await ready.rows("SELECT * FROM responses WHERE iteration_id = :i", i=second)
    assert len(responses) == 12
    assert {row["weight_version"] for row in responses} == {version}
    assert all(row["text"].startswith(f"[{version}] ") for row in responses)
    judged_by = await ready.rows(
        "SELECT DISTINCT judge_version FROM judgements j JOIN responses r ON r.id = j.response_id"
        " WHERE r.iteration_id = :i",
        i=second,
    )
    assert judged_by == [{"judge_version": version}]


async def test_another_run_gets_its_own_base_version_back(ready: Any) -> None:
    """The run before left its own version in the replicas."""
    ready.serve()
    (first,) = await ready.new_run()
    (other,) = await ready.new_run()
    await until_trained(ready, first)
    await ready.advance(first)
    assert stands(await ready.advance(other)) == ("running", "rollout")
    assert (await loaded(ready), await ready.serving()) == ("base", "base")


async def test_ties_everywhere_fail_the_run_and_let_the_next_one_start(ready: Any) -> None:
    ready.serve(Faults(fixed_score=3))
    # Without the threshold, which would call the judge collapsed: see test_health.
    first, second = await ready.new_run(count=2, health={"max_tie_rate": None})
    (other,) = await ready.new_run()
    await ready.advance(first)
    assert stands(await ready.advance(other)) == ("queued", "waiting")
    await ready.roll_out(first)
    failed = await ready.advance(first)
    assert stands(failed) == ("failed", "pairing")
    assert "no prompt gave a preference pair (3 tied)" in failed.error
    assert failed.report["pairing"]["unpaired"] == {"tied": 3}
    assert failed.finished_at is not None
    behind = await ready.iteration(second)
    assert (behind.state, behind.error) == ("failed", "iteration 1 failed before it")
    assert await ready.rows("SELECT * FROM training_jobs") == []
    assert stands(await ready.advance(other)) == ("running", "rollout")


async def test_a_replica_that_is_down_at_the_start_is_waited_for(ready: Any) -> None:
    (only,) = await ready.new_run()
    waiting = await ready.advance(only)
    assert stands(waiting) == ("running", "prepare")
    assert (waiting.error, waiting.failing_since is None) == (None, False)
    (event,) = await ready.rows("SELECT payload FROM events WHERE kind = 'iteration.retry'")
    assert ready.settings.generator_urls[0] in event["payload"]["detail"]
    ready.serve_generator()
    started = await ready.advance(only)
    assert stands(started) == ("running", "rollout")
    assert started.failing_since is None


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


async def test_a_replica_that_is_down_at_the_swap_is_waited_for(ready: Any) -> None:
    ready.serve_judge()
    ready.serve_generator()
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    ready.stop_generator()
    waiting = await ready.advance(only)
    assert stands(waiting) == ("running", "swap")
    assert await ready.serving() == "base"
    ready.serve_generator()  # it starts on the version that is marked as served
    assert stands(await ready.advance(only)) == ("succeeded", "done")
    assert (await loaded(ready), await ready.serving()) == (version, version)


async def test_stale_weights_never_serve(ready: Any) -> None:
    engine = ready.serve()
    first, second = await ready.new_run(count=2)
    await until_trained(ready, first)
    engine.faults = dataclasses.replace(engine.faults, stale_after_reload=True)
    failed = await ready.advance(first)
    assert stands(failed) == ("failed", "swap")
    assert "stale" in failed.error
    assert (await ready.iteration(second)).state == "failed"
    assert (await loaded(ready), await ready.serving()) == ("base", "base")
    # The replica is back in service, and the next run can use it.
    (other,) = await ready.new_run()
    assert stands(await ready.advance(other)) == ("running", "rollout")
    await ready.roll_out(other)
    responses = await ready.rows("SELECT * FROM responses WHERE iteration_id = :i", i=other)
    assert {row["weight_version"] for row in responses} == {"base"}


async def test_a_replica_that_cannot_return_is_taken_out(ready: Any) -> None:
    """Its weights are right and its answers are not, whichever version it loads."""
    engine = ready.serve()
    (only,) = await ready.new_run()
    await until_trained(ready, only)
    engine.faults = dataclasses.replace(engine.faults, logprob_error=0.2)
    failed = await ready.advance(only)
    assert failed.state == "failed"
    version = failed.new_version_id
    assert failed.error.startswith(f"{version}: the engine's log-probabilities differ from the")
    assert await ready.serving() == "base"
    async with httpx.AsyncClient(base_url=ready.settings.generator_urls[0]) as client:
        assert (await client.get("/health")).status_code == 503
        key = {"authorization": f"Bearer {ready.settings.api_key.get_secret_value()}"}
        body = {"model": "policy", "messages": [{"role": "user", "content": "hello"}]}
        answer = await client.post("/v1/chat/completions", json=body, headers=key)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


async def test_if_one_replica_fails_all_return(ready: Any) -> None:
    urls = [ready.settings.generator_urls[0], f"http://127.0.0.1:{free_port()}"]
    ready.settings = ready.settings.model_copy(update={"generator_urls": urls})
    ready.serve()
    other = ready.serve_generator(replica=1)
    (only,) = await ready.new_run()
    await until_trained(ready, only)
    other.faults = dataclasses.replace(other.faults, stale_after_reload=True)
    failed = await ready.advance(only)
    assert stands(failed) == ("failed", "swap")
    assert [await loaded(ready, replica) for replica in (0, 1)] == ["base", "base"]
    assert await ready.serving() == "base"


async def test_two_replicas_share_the_prompts_and_swap_together(ready: Any) -> None:
    urls = [ready.settings.generator_urls[0], f"http://127.0.0.1:{free_port()}"]
    ready.settings = ready.settings.model_copy(update={"generator_urls": urls})
    ready.serve(Faults(latency_seconds=0.02))
    other = ready.serve_generator(replica=1, faults=Faults(latency_seconds=0.02))
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    assert other.num_requests >= 1
    assert stands(await ready.advance(only)) == ("succeeded", "done")
    assert [await loaded(ready, replica) for replica in (0, 1)] == [version, version]


async def test_a_damaged_checkpoint_is_never_loaded(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    folder = checkpoints.folder_of(ready.settings.checkpoint_root, version)
    (folder / "model.safetensors").write_bytes(b"something else")
    failed = await ready.advance(only)
    assert stands(failed) == ("failed", "swap")
    assert "model.safetensors differ from the manifest" in failed.error
    assert (await loaded(ready), await ready.serving()) == ("base", "base")


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
    assert (await ready.iteration(second)).error == "iteration 1 failed before it"
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
    (only,) = await ready.new_run(evaluation={"dataset": "seed"})
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
    (only,) = await ready.new_run(evaluation={"dataset": "seed"})
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


async def test_nobody_queues_an_iteration_behind_one_that_is_failing(ready: Any) -> None:
    """It would wait for ever: the failure has ended those that it saw."""
    (first,) = await ready.new_run()
    await ready.in_rollout(first)
    run_id = (await ready.iteration(first)).run_id
    added = asyncio.Event()

    async def add() -> None:
        async with ready.store.transaction() as session:
            await runs.add_iterations(session, run_id, 1)
            added.set()
            await until_blocked(ready)

    async def fail() -> None:
        await added.wait()
        async with ready.store.transaction() as session:
            current = await iterations.get(session, first, lock=True)
            await iterations.fail(session, current, NotFound("for this test"))

    await asyncio.gather(add(), fail())
    states = await ready.rows("SELECT state, error FROM iterations ORDER BY index")
    assert states == [
        {"state": "failed", "error": "for this test"},
        {"state": "failed", "error": "iteration 1 failed before it"},
    ]
    async with ready.store.transaction() as session:
        with pytest.raises(Conflict, match="iteration 2 of this run failed"):
            await runs.add_iterations(session, run_id, 1)


async def until_blocked(world: Any) -> None:
    """Somebody waits for a lock in Postgres."""
    async with asyncio.timeout(30):
        while not await world.rows(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)


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


async def two_replicas(world: Any) -> list[str]:
    urls = [world.settings.generator_urls[0], f"http://127.0.0.1:{free_port()}"]
    world.settings = world.settings.model_copy(update={"generator_urls": urls})
    world.serve()
    world.serve_generator(replica=1)
    return urls


async def test_replicas_that_hold_different_tensors_have_failed(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is content with itself."""
    urls = await two_replicas(ready)
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    activate = ReplicaAdmin.activate

    async def differing(self: ReplicaAdmin, wanted: str) -> dict[str, Any]:
        report = await activate(self, wanted)
        if self.url == urls[1] and wanted == version:
            report["checksums"]["model.layer"] = "another"
        return report

    monkeypatch.setattr(ReplicaAdmin, "activate", differing)
    failed = await ready.advance(only)
    assert stands(failed) == ("failed", "swap")
    assert failed.error == f"the replicas hold different tensors under {version}"
    assert [await loaded(ready, replica) for replica in (0, 1)] == ["base", "base"]
    assert await ready.serving() == "base"


async def test_a_replica_that_does_not_return_is_named(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refuses the new version, and the other one, which took it, does not go back."""
    urls = await two_replicas(ready)
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    activate = ReplicaAdmin.activate

    async def broken(self: ReplicaAdmin, wanted: str) -> dict[str, Any]:
        if self.url == urls[1]:
            raise SwapFailed("refused")
        if wanted == "base":
            raise UpstreamUnavailable("gone")
        return await activate(self, wanted)

    monkeypatch.setattr(ReplicaAdmin, "activate", broken)
    failed = await ready.advance(only)
    assert stands(failed) == ("failed", "swap")
    assert failed.error == (
        f"{urls[0]} could not return to base (gone); restart it: it starts on the version that "
        "is marked as served"
    )
    assert (await loaded(ready), await ready.serving()) == (version, "base")


async def test_two_controllers_at_once_are_as_good_as_one(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await asyncio.gather(*(ready.advance(only) for _ in range(3)))
    await ready.advance(only)
    await ready.roll_out(only)
    await asyncio.gather(*(ready.advance(only) for _ in range(3)))
    await ready.advance(only)
    assert await ready.value("SELECT count(*) FROM training_jobs") == 1
    assert (
        await ready.value("SELECT count(*) - count(DISTINCT prompt_id) FROM preference_pairs") == 0
    )
    entered = await ready.rows("SELECT kind FROM events WHERE kind LIKE 'iteration.%' ORDER BY id")
    assert [row["kind"].partition(".")[2] for row in entered] == [
        "queued",
        "prepare",
        "rollout",
        "pairing",
        "train",
    ]
