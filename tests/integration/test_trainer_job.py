"""The trainer's job around its child; the child is a few lines instead of TRL."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from rewardloop import checkpoints
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import failures, training
from services.generator.stub_verdict import asked_by_prompt
from services.trainer import __main__ as trainer_service
from services.trainer import child
from services.trainer import job as trainer
from services.trainer.child import run_child
from tests.integration.trainer_jobs import TRAINS, Write, left_over, work


async def test_a_job_publishes_a_version_and_its_metrics(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.broker.flushall()
    (task,) = await work(world, job, monkeypatch, module(TRAINS))
    pairs = await world.rows("SELECT * FROM preference_dataset ORDER BY pair_id")
    assert [pair["chosen"][0]["content"] for pair in task["pairs"]] == [p["chosen"] for p in pairs]
    assert task["pairs"][0]["rejected"][0]["role"] == "assistant"
    assert task["base"].endswith("/base")
    (base,) = await world.rows("SELECT manifest FROM model_versions WHERE id = 'base'")
    assert task["reference"] == {
        "folder": str(world.settings.checkpoint_root / ".base.reference"),
        "base": checkpoints.digest_of(base["manifest"]),
    }

    iteration = await world.iteration(job.iteration_id)
    version = iteration.new_version_id
    (row,) = await world.rows("SELECT * FROM model_versions WHERE id = :v", v=version)
    assert (row["parent_id"], row["kind"]) == ("base", "dpo")
    folder = checkpoints.folder_of(world.settings.checkpoint_root, version)
    assert checkpoints.verify(folder) == row["manifest"]
    assert row["manifest"]["parent"] == "base"
    assert row["manifest"]["num_pairs"] == len(pairs)
    assert (folder / "model.safetensors").read_bytes() == b"new weights"
    (stored,) = await world.rows("SELECT * FROM training_jobs")
    assert (stored["state"], stored["error"], stored["num_steps"]) == ("succeeded", None, 2)
    async with world.store.transaction() as session:
        assert await training.metrics_of(session, job.iteration_id) == [
            {"step": 1, "loss": 0.7},
            {"step": 2, "loss": 0.6, "train_runtime": 1.5},
        ]
    assert world.messages("control") == 1
    assert left_over(world) == []


ADAPTS = """
import numpy
from safetensors.numpy import save_file
(output / "model.safetensors").unlink()
save_file({"x": numpy.ones(1, numpy.float32)}, output / "adapter_model.safetensors")
said = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"]}
said["base_model_name_or_path"] = Path(task["base"]).name
(output / "adapter_config.json").write_text(json.dumps(said))
"""


async def test_an_adapter_is_committed_with_its_base(
    world: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    world.serve()
    (only,) = await world.new_run(training={"weights": {"kind": "lora"}})
    await world.judged(only, {1: [[1.0], [4.0]]})
    await world.advance(only)
    async with world.store.transaction() as session:
        leased = await training.lease(session, "me", 60)
    (task,) = await work(world, leased, monkeypatch, module(TRAINS + ADAPTS))
    assert task["base"].endswith("/base")
    assert "adapter" not in task
    (row,) = await world.rows("SELECT * FROM model_versions WHERE id <> 'base'")
    (base,) = await world.rows("SELECT * FROM model_versions WHERE id = 'base'")
    assert (row["parent_id"], row["base_id"], base["base_id"]) == ("base", "base", None)
    assert row["manifest"]["base"] == checkpoints.as_base(base["manifest"])


async def test_what_a_child_says_of_its_data_and_its_end_is_kept(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = (
        'report(channel, num_dropped=2, why="too long")\n'
        "report(channel, stopped_at=200, kept_step=0)\n"
    )
    await work(world, job, monkeypatch, module(says + TRAINS))
    assert (await world.iteration(job.iteration_id)).report["training_model"] == {
        "num_dropped": 2,
        "why": "too long",
        "stopped_at": 200,
        "kept_step": 0,
    }
    told = "SELECT manifest ->> 'num_dropped' FROM model_versions WHERE manifest ? 'num_dropped'"
    assert await world.value(told) == "2"


VALIDATES = """
from services.trainer.child import ask
for step, answer in ((0, "short"), (2, "of middling length"), (4, "tiny")):
    said = ask(channel, validation={"step": step, "answers": [answer] * 2})
    if step < 4:
        report(channel, step=step, metrics={"go_on": said["go_on"]})
"""


def prefer_the_longer(prompt: str, index: int, **how: Any) -> str:
    first = prompt.partition("<first_response>\n")[2].partition("\n</first_response>")[0]
    second = prompt.partition("<second_response>\n")[2].partition("\n</second_response>")[0]
    asked = asked_by_prompt(prompt)
    assert asked is not None
    return f"Better{asked.nonce}: {'first' if len(first) > len(second) else 'second'}"


async def test_the_judge_answers_a_childs_checks_and_they_are_kept_as_metrics(
    world: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    await world.add_prompts("v1", "v2", "v3", dataset="validation")
    engine = world.serve()
    (only,) = await world.new_run(training={"early_stopping": {"num_prompts": 2}})
    await world.judged(only, {1: [[1.0], [4.0]]})
    await world.advance(only)
    monkeypatch.setattr(engine, "write", prefer_the_longer)
    async with world.store.transaction() as session:
        leased = await training.lease(session, "me", 60)
    await work(world, leased, monkeypatch, module(TRAINS + VALIDATES))
    assert engine.num_requests == 2 * 2 * 2  # two checks after the first, both orders
    async with world.store.transaction() as session:
        metrics = {row.pop("step"): row for row in await training.metrics_of(session, only)}
    assert metrics[0] == {"go_on": True}  # there is nothing to compare it with
    assert metrics[2]["go_on"]
    assert (metrics[2]["validation_win_rate"], metrics[2]["validation_loss_rate"]) == (1.0, 0.0)
    # The child said nothing more after its last check, and its figures are kept all the same.
    assert metrics[4] == {"validation_win_rate": 0.0, "validation_loss_rate": 1.0}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ('report(channel, error="ValueError: bad pairs")', "bad pairs"),
        ('report(channel, error="no room left", disk_full=True)', "no room left"),
        ("os._exit(9)", "status 9"),
    ],
)
async def test_a_job_that_fails_says_why_and_leaves_nothing(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    half = 'os.mkdir(task["output"])\n'
    await work(world, job, monkeypatch, module(half + code))
    (stored,) = await world.rows("SELECT * FROM training_jobs")
    assert stored["state"] == "failed"
    assert told in stored["error"]
    assert left_over(world) == []
    assert await world.value("SELECT count(*) FROM model_versions") == 1
    failed = await world.advance(job.iteration_id)
    assert failed.state == "failed"
    assert told in failed.error


async def test_a_trainer_that_lost_its_job_changes_nothing(world: Any, job: Any) -> None:
    """Its lease ran out and another one trains; the late end of the first must not count."""
    await world.rows(
        "UPDATE training_jobs SET lease_expires_at = now() - interval '1 s' RETURNING 1"
    )
    async with world.store.transaction() as session:
        other = await training.lease(session, "other", 60)
        assert other is not None
        assert other.num_attempts == 2
        assert not await training.renew(session, job.id, "me", 60)
    async with world.store.transaction() as session:
        await training.fail(session, job, "late")
    (stored,) = await world.rows("SELECT state, lease_owner, error FROM training_jobs")
    assert stored == {"state": "running", "lease_owner": "other", "error": None}


async def test_a_job_that_nobody_renews_is_taken_again(world: Any, job: Any) -> None:
    async with world.store.transaction() as session:
        assert await training.lease(session, "other", 60) is None
        assert await training.renew(session, job.id, "me", -1)
    async with world.store.transaction() as session:
        again = await training.lease(session, "other", 60)
    assert again is not None
    assert (again.id, again.lease_owner, again.num_attempts) == (job.id, "other", 2)


async def lose_lease(world: Any) -> None:
    """As after a minute without Postgres: the lease ran out and another trainer was faster."""
    await world.rows("UPDATE training_jobs SET lease_owner = 'other' RETURNING 1")


async def reported(world: Any) -> int:
    """The process id that the child of the only job reported, once it has."""
    async with asyncio.timeout(120):
        while True:
            (row,) = await world.rows("SELECT report FROM iterations")
            if "training_model" in row["report"]:
                return int(row["report"]["training_model"]["pid"])
            await asyncio.sleep(0.02)


SLEEPS = "report(channel, pid=os.getpid())\ntime.sleep(600)"


async def test_a_trainer_that_loses_its_lease_ends_the_child_and_takes_the_next_job(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(trainer_service, "POLL_SECONDS", 0.05)
    name = module(SLEEPS)
    monkeypatch.setattr(trainer, "run_child", lambda _, task, answer: run_child(name, task, answer))
    await world.rows(
        "UPDATE training_jobs SET state = 'queued', lease_expires_at = NULL RETURNING 1"
    )
    serving = asyncio.create_task(trainer_service.serve(world.settings))
    pid = await reported(world)
    await lose_lease(world)
    async with asyncio.timeout(120):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.02)
    (lost,) = await world.rows("SELECT state, lease_owner, error FROM training_jobs")
    assert lost == {"state": "running", "lease_owner": "other", "error": None}
    assert (await world.iteration(job.iteration_id)).failing_since is None

    module(TRAINS)  # what the next child runs
    await world.rows("UPDATE training_jobs SET lease_expires_at = now() RETURNING 1")
    async with asyncio.timeout(120):
        while await world.value("SELECT state FROM training_jobs") != "succeeded":
            await asyncio.sleep(0.02)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_trainer_that_is_stopped_ends_with_its_child(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(SLEEPS)
    monkeypatch.setattr(trainer, "run_child", lambda _, task, answer: run_child(name, task, answer))
    await world.rows("UPDATE training_jobs SET state = 'queued' RETURNING 1")
    serving = asyncio.create_task(trainer_service.serve(world.settings))
    pid = await reported(world)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not psutil.pid_exists(pid)


async def test_a_transient_error_leaves_the_job_to_be_taken_again(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that is away while early stopping asks it, say; for an hour at most."""

    async def away(*_: Any) -> AsyncIterator[dict[str, Any]]:
        raise UpstreamUnavailable("the judge is away")
        yield {}

    monkeypatch.setattr(trainer, "run_child", away)
    await trainer.work_on(world.store, world.celery, world.settings, job, "me")
    assert await world.value("SELECT state FROM training_jobs") == "running"
    since = (await world.iteration(job.iteration_id)).failing_since
    assert since is not None
    (event,) = await world.rows("SELECT payload FROM events WHERE kind = 'iteration.retry'")
    assert event["payload"]["detail"] == "the judge is away"

    await world.rows("UPDATE training_jobs SET lease_expires_at = now() RETURNING 1")
    async with world.store.transaction() as session:
        again = await training.lease(session, "me", 60)
    assert again.num_attempts == 2
    monkeypatch.setattr(failures, "MAX_FAILING", timedelta(0))
    await trainer.work_on(world.store, world.celery, world.settings, again, "me")
    failed = await world.iteration(job.iteration_id)
    assert (failed.state, failed.error) == ("failed", "the judge is away")
    assert await world.value("SELECT state FROM training_jobs") == "failed"


async def test_a_trainer_whose_job_another_one_has_counts_no_failure(world: Any, job: Any) -> None:
    await lose_lease(world)
    async with world.store.transaction() as session:
        await training.note_failure(session, job, UpstreamUnavailable("late"))
    assert (await world.iteration(job.iteration_id)).failing_since is None


async def test_an_error_of_the_disk_fails_the_job_and_not_the_trainer(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoints, "verify", unreadable)
    await trainer.work_on(world.store, world.celery, world.settings, job, "me")
    (stored,) = await world.rows("SELECT state, error FROM training_jobs")
    assert stored == {"state": "failed", "error": "OSError: [Errno 5] Input/output error"}
    assert (await world.advance(job.iteration_id)).state == "failed"


async def test_the_lease_is_kept_while_checkpoints_are_hashed(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of gigabytes takes longer than a lease lasts."""
    monkeypatch.setattr(trainer, "RENEW_SECONDS", 0.02)
    renewed, hashed = threading.Event(), []
    renew, verify = training.renew, checkpoints.verify

    async def noting(*args: Any) -> bool:
        kept = await renew(*args)
        renewed.set()
        return kept

    def slowly(folder: Path) -> dict[str, Any]:
        renewed.clear()
        assert renewed.wait(120), "the lease was not renewed"
        hashed.append(folder.name)
        return verify(folder)

    monkeypatch.setattr(training, "renew", noting)
    monkeypatch.setattr(checkpoints, "verify", slowly)
    await work(world, job, monkeypatch, module(TRAINS))
    version = (await world.iteration(job.iteration_id)).new_version_id
    assert version is not None
    await world.rows("UPDATE training_jobs SET state = 'running', error = NULL RETURNING 1")
    await work(world, job, monkeypatch, module(TRAINS))  # finds what is published
    assert hashed == ["base", "base", version]


async def test_a_training_outlives_a_restart_of_postgres(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_metrics, calls = training.add_metrics, iter(range(100))

    async def refused_at_first(*args: Any) -> None:
        if next(calls) < 2:
            raise OperationalError("INSERT", {}, psycopg.OperationalError("connection refused"))
        await add_metrics(*args)

    monkeypatch.setattr(training, "add_metrics", refused_at_first)
    await work(world, job, monkeypatch, module(TRAINS))
    (stored,) = await world.rows("SELECT state, num_attempts FROM training_jobs")
    assert stored == {"state": "succeeded", "num_attempts": 1}
    async with world.store.transaction() as session:
        assert await training.metrics_of(session, job.iteration_id) == [
            {"step": 1, "loss": 0.7},
            {"step": 2, "loss": 0.6, "train_runtime": 1.5},
        ]


async def test_a_child_that_hangs_is_ended(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "SILENCE_SECONDS", 0.5)
    await work(world, job, monkeypatch, module(SLEEPS))
    (stored,) = await world.rows("SELECT state, error FROM training_jobs")
    assert stored["state"] == "failed"
    assert "reported nothing for " in stored["error"]
    children = psutil.Process().children()
    assert [c for c in children if "tiny_child" in c.cmdline()] == []
