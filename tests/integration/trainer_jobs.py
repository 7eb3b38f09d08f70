"""A training job whose child is a few lines instead of TRL."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rewardloop.store import training
from services.trainer import job as trainer
from services.trainer.child import Answer, run_child

Write = Callable[[str], str]
HEADER = """
import json, os, sys, time
from services.trainer.child import open_channel, report
task, channel = open_channel()
"""
TRAINS = """
from pathlib import Path
report(channel, num_steps=2)
print("a library prints to stdout")
report(channel, step=1, metrics={"loss": 0.7})
report(channel, step=2, metrics={"loss": 0.6})
report(channel, step=2, metrics={"train_runtime": 1.5})
output = Path(task["output"])
output.mkdir()
(output / "model.safetensors").write_bytes(b"new weights")
(output / "canaries.json").write_text("{}")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module for a child to run; returns its name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(code: str) -> str:
        (tmp_path / "tiny_child.py").write_text(HEADER + code)
        return "tiny_child"

    return write


@pytest.fixture
async def job(world: Any, module: Write) -> AsyncIterator[Any]:
    """A leased job of an iteration that has pairs."""
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    world.serve()
    (only,) = await world.new_run()
    await world.advance(only)
    await world.roll_out(only)
    await world.advance(only)
    async with world.store.transaction() as session:
        leased = await training.lease(session, "me", 60)
    assert leased is not None
    return leased


async def work(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> list[dict[str, Any]]:
    """Work on the job with `name` in the place of DPO; returns the tasks it was given."""
    tasks: list[dict[str, Any]] = []

    def instead(
        _: str, task: dict[str, Any], answer: Answer | None
    ) -> AsyncIterator[dict[str, Any]]:
        tasks.append(task)
        return run_child(name, task, answer)

    monkeypatch.setattr(trainer, "run_child", instead)
    await trainer.work_on(world.store, world.celery, world.settings, job, "me")
    return tasks


def left_over(world: Any) -> list[str]:
    return [p.name for p in world.settings.checkpoint_root.iterdir() if p.name.startswith(".")]
