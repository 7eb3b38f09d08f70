"""The controller takes iterations through their phases; only the training is simulated."""

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop import checkpoints
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.embedded.process import free_port
from rewardloop.errors import Conflict, SwapFailed, TrainingFailed, UpstreamUnavailable
from rewardloop.store import iterations, runs
from rewardloop.store.models import Iteration
from services.generator.stub_engine import Faults


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
    assert stands(await ready.advance(second)) == ("queued", "waiting")  # until it is retried
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
    assert (await ready.iteration(second)).state == "queued"
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


async def test_a_failed_run_names_the_iteration_that_failed_first_and_its_base(
    ready: Any,
) -> None:
    first, second = await ready.new_run(count=2)
    await ready.in_rollout(first)
    async with ready.store.transaction() as session:
        failing = await iterations.get(session, first, lock=True)
        await iterations.note_failure(session, failing, TrainingFailed("no memory"))
    assert (await ready.iteration(second)).state == "queued"
    with pytest.raises(Conflict, match=r"iteration 1 .*no memory.* base_version 'base'"):
        async with ready.store.transaction() as session:
            await runs.add_iterations(session, failing.run_id, 1)


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
