"""A training that is killed goes on from its last state and ends bit for bit as one that is not.

The kills are SIGKILLs of the real child, at steps that a seed draws. Five follow each other in
one training, so that a state that was saved after a restart is gone on from too.
"""

import asyncio
import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from rewardloop.errors import TrainingKilled
from services.trainer.child import run_child
from tests.e2e.test_early_stopping import dpo_task, same_weights, sft_task, with_checks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
NUM_KILLS = 5
SAVE_EVERY = 2
OF_THE_CLOCK = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}


def sft_with_dropout(tiny: Path, output: Path) -> dict[str, Any]:
    return sft_task(tiny, output, dropout=0.3)


def dpo_of_two_epochs(tiny: Path, output: Path) -> dict[str, Any]:
    return dpo_task(tiny, output, dropout=0.3, num_epochs=2)


def dpo_that_stops_early(tiny: Path, output: Path) -> dict[str, Any]:
    """Checked at 0, 3 and 6; `answer` prefers all but the last, so step 3 is published."""
    return with_checks(dpo_of_two_epochs(tiny, output), every_num_steps=3)


async def answer(question: dict[str, Any]) -> dict[str, Any]:
    if question["step"]:
        assert len(question["against"]) == len(question["answers"])
    return {"go_on": question["step"] < 6}


async def train(module: str, task: dict[str, Any], kill_at: int | None) -> list[dict[str, Any]]:
    """Train in a child, which is killed as soon as it reports the step."""
    reports: list[dict[str, Any]] = []
    try:
        async for said in run_child(module, task, answer):
            reports.append(said)
            if kill_at is not None and said.get("step") == kill_at:
                (child,) = psutil.Process().children()
                os.kill(child.pid, signal.SIGKILL)
    except TrainingKilled:
        assert kill_at is not None
    return reports


def metrics(reports: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What was logged, by step; the later of two wins, as in the database."""
    merged: dict[int, dict[str, Any]] = {}
    for said in reports:
        if "metrics" in said:
            found = {k: v for k, v in said["metrics"].items() if k not in OF_THE_CLOCK}
            merged.setdefault(said["step"], {}).update(found)
    return merged


@pytest.mark.parametrize(
    ("module", "make", "num_steps"),
    [
        ("services.trainer.sft", sft_with_dropout, 8),
        ("services.trainer.dpo", dpo_of_two_epochs, 8),
        ("services.trainer.dpo", dpo_that_stops_early, 6),
    ],
)
def test_five_kills_change_nothing(
    tiny: Path, tmp_path: Path, module: str, make: Any, num_steps: int
) -> None:
    whole = make(tiny, tmp_path / "whole")
    undisturbed = asyncio.run(train(module, whole, None))

    killed = {**make(tiny, tmp_path / "killed"), "state": str(tmp_path / ".killed.state")}
    killed["config"] |= {"save_every_steps": SAVE_EVERY}
    kills = sorted(Random(make.__name__).sample(range(1, num_steps + 1), NUM_KILLS))
    reports: list[dict[str, Any]] = []
    for kill_at in kills:
        reports += asyncio.run(train(module, killed, kill_at))
        assert not (tmp_path / "killed" / "model.safetensors").exists()
    last = asyncio.run(train(module, killed, None))
    (resumed_at,) = [said["resumed_at"] for said in last if "resumed_at" in said]
    assert resumed_at >= kills[-1] - SAVE_EVERY

    assert same_weights(tmp_path / "killed", tmp_path / "whole"), kills
    assert not same_weights(tmp_path / "killed", tiny)
    expected, found = metrics(undisturbed), metrics(reports + last)
    if resumed_at == num_steps:  # only the checkpoint was left to write, and no mean to log
        expected[num_steps].pop("train_loss")
        expected[num_steps].pop("total_flos")
    assert found == expected
