"""Trainings that are paused, cancelled, killed or diverge, and what is left of them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardloop import checkpoints
from rewardloop.lifecycle import Ask
from rewardloop.records import StopWish
from rewardloop.store import control, training
from services.trainer import stopping
from services.trainer.saved_state import States
from tests.integration.trainer_jobs import TRAINS, Write, left_over, work

CLAIMS = """
from pathlib import Path
from services.trainer.saved_state import States
states = States(Path(task["state"]))
states.claim(task)

def save(step):
    written = Path(task["output"] + ".written")
    written.mkdir(parents=True)
    (written / "weights").write_text(str(step))
    states.add(written, step, finished=False)
    report(channel, saved_step=step)
"""
STEPS_UNTIL_ASKED = (
    CLAIMS
    + """
step = 0
while not states.stop_wanted:
    step += 1
    report(channel, step=step, metrics={"loss": 0.5})
    time.sleep(0.02)
save(step)
report(channel, paused_at=step)
"""
)
SLEEPS = CLAIMS + "save(3)\nreport(channel, pid=os.getpid())\ntime.sleep(600)"
KILLED_ONCE = (
    CLAIMS
    + """
if states.newest() is None:
    report(channel, step=1, metrics={"loss": 0.9})
    save(1)
    os.kill(os.getpid(), 9)
report(channel, resumed_at=states.newest().step)
"""
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(stopping, "CANCEL_SECONDS", 0.3)


async def ask(world: Any, job: Any, how: StopWish) -> None:
    async with world.store.transaction() as session:
        await training.ask_to_stop(session, job.iteration_id, how)


async def taken_again(world: Any, job: Any) -> Any:
    async with world.store.transaction() as session:
        await training.ask_to_go_on(session, job.iteration_id)
    async with world.store.transaction() as session:
        return await training.lease(session, "me", 60)


async def metrics(world: Any, job: Any) -> list[dict[str, Any]]:
    async with world.store.transaction() as session:
        return await training.metrics_of(session, job.iteration_id)


async def once(holds: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with asyncio.timeout(120):
        while not (found := await holds()):
            await asyncio.sleep(0.02)
    return found


async def stored(world: Any) -> dict[str, Any]:
    (row,) = await world.rows("SELECT state, error, error_kind, stop_wanted FROM training_jobs")
    return dict(row)


async def found(world: Any, job: Any) -> dict[str, Any]:
    """What is told of the training in the iteration's report."""
    report = (await world.iteration(job.iteration_id)).report
    return dict(report.get("training_model", {}))


def state_folders(world: Any) -> list[Path]:
    return list(world.settings.checkpoint_root.glob(".*.state"))


async def test_a_pause_keeps_the_state_and_what_goes_on_has_all_metrics(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = asyncio.create_task(work(world, job, monkeypatch, module(STEPS_UNTIL_ASKED)))
    await once(lambda: metrics(world, job))
    await ask(world, job, StopWish.PAUSE)
    await working
    assert (await stored(world))["state"] == "paused"
    step = (await found(world, job))["paused_at"]
    assert [row["step"] for row in await metrics(world, job)] == list(range(1, step + 1))
    (folder,) = state_folders(world)
    assert left_over(world) == [folder.name]
    assert not States(folder).stop_wanted
    assert (await world.advance(job.iteration_id)).phase == "train"

    goes_on = CLAIMS + "report(channel, resumed_at=states.newest().step)\n"
    last = TRAINS.replace("step=1,", f"step={step + 1},").replace("step=2,", f"step={step + 2},")
    again = await taken_again(world, job)
    await work(world, again, monkeypatch, module(goes_on + last))
    assert (await stored(world))["state"] == "succeeded"
    assert [row["step"] for row in await metrics(world, job)] == list(range(1, step + 3))
    assert left_over(world) == []


async def test_a_cancel_ends_a_child_that_does_not_stop_and_keeps_its_state(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = asyncio.create_task(work(world, job, monkeypatch, module(SLEEPS)))

    async def pid() -> Any:
        return (await found(world, job)).get("pid")

    child = await once(pid)
    await ask(world, job, StopWish.CANCEL)
    await working
    assert not psutil.pid_exists(child)
    assert await stored(world) == {
        "state": "cancelled",
        "error": None,
        "error_kind": None,
        "stop_wanted": "cancel",
    }
    (folder,) = state_folders(world)
    saved = States(folder).newest()
    assert saved is not None
    assert saved.step == 3


async def test_a_child_that_is_killed_goes_on_in_the_same_attempt(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await work(world, job, monkeypatch, module(KILLED_ONCE + TRAINS))
    assert len(tasks) == 2
    assert (await stored(world))["state"] == "succeeded"
    told = await found(world, job)
    assert (told["num_restarts_of_child"], told["resumed_at"]) == (1, 1)
    assert "SIGKILL" in told["restarted_because"]
    assert left_over(world) == []


async def test_a_child_that_is_always_killed_fails_and_says_what_ended_it(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await work(world, job, monkeypatch, module("os.kill(os.getpid(), 9)"))
    assert len(tasks) == 2
    failed = await world.advance(job.iteration_id)
    assert (failed.state, failed.error_kind) == ("failed", "training-killed")
    assert "SIGKILL" in failed.error
    assert "memory" in failed.error


async def test_a_training_that_diverges_publishes_nothing_and_keeps_no_state(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
from rewardloop.errors import TrainingDiverged
from services.trainer.child import reported_errors
save(1)
report(channel, step=2, metrics={"loss": float("nan")})
with reported_errors(channel):
    raise TrainingDiverged("at step 2 the loss is nan", step=2, quantity="loss")
"""
    await work(world, job, monkeypatch, module(CLAIMS + code))
    failed = await world.advance(job.iteration_id)
    assert (failed.state, failed.error_kind) == ("failed", "diverged")
    assert "at step 2 the loss is nan" in failed.error
    assert await metrics(world, job) == [{"step": 2, "loss": "nan"}]
    assert await world.value("SELECT count(*) FROM model_versions") == 1
    assert left_over(world) == []


async def test_a_full_disk_keeps_what_was_trained(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
from services.trainer.child import reported_errors
save(7)
with reported_errors(channel):
    raise OSError(28, "No space left on device")
"""
    await work(world, job, monkeypatch, module(CLAIMS + code))
    failed = await world.advance(job.iteration_id)
    assert (failed.state, failed.error_kind) == ("failed", "disk-full")
    async with world.store.transaction() as session:
        await control.ask(session, job.iteration_id, Ask.RETRY)
    for _ in range(10):
        await world.advance(job.iteration_id)
    async with world.store.transaction() as session:
        again = await training.lease(session, "me", 60)
    resumes = CLAIMS + "report(channel, resumed_at=states.newest().step)\n"
    await work(world, again, monkeypatch, module(resumes + TRAINS))
    assert (await found(world, job))["resumed_at"] == 7
    assert (await stored(world))["state"] == "succeeded"
    assert (await world.advance(job.iteration_id)).phase == "swap"


KILLED_BEFORE_THE_COMMIT = """
import asyncio, os
from rewardloop.config import load_settings
from services.trainer import __main__, job
from services.trainer.child import run_child
job.run_child = lambda _, task, answer: run_child("tiny_child", task, answer)
job.versions.add = lambda *_, **__: os.kill(os.getpid(), 9)
asyncio.run(__main__.serve(load_settings()))
"""


async def test_a_trainer_killed_between_publishing_and_its_commit_makes_one_version(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(TRAINS)
    await world.rows("UPDATE training_jobs SET state = 'queued' RETURNING 1")
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED_BEFORE_THE_COMMIT], timeout=120, check=False
    )
    assert ended.returncode == -9
    assert await world.value("SELECT count(*) FROM model_versions") == 1
    (published,) = (p for p in world.settings.checkpoint_root.iterdir() if p.name[:4] == "run-")
    manifest = checkpoints.verify(published)

    await world.rows("UPDATE training_jobs SET lease_expires_at = now() RETURNING 1")
    again = await taken_again(world, job)
    tasks = await work(world, again, monkeypatch, module("os._exit(9)"))
    assert tasks == []
    iteration = await world.iteration(job.iteration_id)
    assert iteration.new_version_id == published.name
    (row,) = await world.rows("SELECT * FROM model_versions WHERE id = :v", v=published.name)
    assert row["manifest"] == manifest
    assert left_over(world) == []


async def test_a_controller_lost_between_the_commit_and_the_swap_makes_one_version(
    world: Any, job: Any, module: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = """
from tests.integration.conftest import write_checkpoint
write_checkpoint(output, "new")
"""
    await work(world, job, monkeypatch, module(TRAINS + canaries))
    await world.rows("DELETE FROM outbox RETURNING 1")
    world.broker.flushall()
    async with world.store.transaction() as session:
        assert await training.lease(session, "other", 60) is None
    for _ in range(3):
        await world.advance(job.iteration_id)
    iteration = await world.iteration(job.iteration_id)
    assert iteration.new_version_id == await world.serving()
    assert await world.value("SELECT count(*) FROM model_versions") == 2


async def test_the_job_of_a_trainer_that_was_killed_is_free_before_its_lease_runs_out(
    world: Any, job: Any, module: Write
) -> None:
    module(SLEEPS)
    await world.rows("UPDATE training_jobs SET state = 'queued' RETURNING 1")
    trains = KILLED_BEFORE_THE_COMMIT
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", trains)

    async def pid() -> Any:
        return (await found(world, job)).get("pid")

    child = await once(pid)
    async with world.store.transaction() as session:
        assert await training.lease(session, "other", 60) is None
        assert await training.is_held(session, job.iteration_id)
    process.kill()
    await process.wait()

    async def taken() -> Any:
        async with world.store.transaction() as session:
            return await training.lease(session, "other", 60)

    died_at = await world.value("SELECT now()")
    expired_at = await world.value("SELECT lease_expires_at FROM training_jobs")
    again = await once(taken)
    assert again.num_attempts == job.num_attempts + 2
    assert died_at < expired_at
    assert await world.value("SELECT now()") < expired_at

    async def has_ended() -> bool:
        try:
            return psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await once(has_ended)
