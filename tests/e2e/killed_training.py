"""A training whose child is killed again and again, beside the same one undisturbed.

The kills are SIGKILLs of the real child, as it reports steps that a seed draws. They follow each
other in one training, so that a state that was saved after a restart is gone on from too.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil

from rewardloop.errors import TrainingKilled
from services.trainer.child import run_child
from tests.e2e.test_early_stopping import dpo_task, same_weights, sft_task, with_checks

NUM_KILLS = 5
SAVE_EVERY = 2
OF_THE_CLOCK = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
OF_THE_END = {"train_loss", "total_flos"}
"""TRL's summary, which is not logged again where only the checkpoint was left to write."""

Reports = list[dict[str, Any]]
Make = Callable[[Path, Path], dict[str, Any]]


def sft(tiny: Path, output: Path) -> dict[str, Any]:
    return sft_task(tiny, output, dropout=0.3)


def dpo(tiny: Path, output: Path) -> dict[str, Any]:
    """Two epochs, so that one begins anew between kills."""
    return dpo_task(tiny, output, dropout=0.3, num_epochs=2)


def dpo_that_stops_early(tiny: Path, output: Path) -> dict[str, Any]:
    """Checked at 0, 3 and 6; `answer` prefers all but the last, so step 3 is published."""
    return with_checks(dpo(tiny, output), every_num_steps=3)


KINDS: dict[str, tuple[str, Make, int]] = {
    "sft": ("services.trainer.sft", sft, 8),
    "dpo": ("services.trainer.dpo", dpo, 8),
    "dpo that stops early": ("services.trainer.dpo", dpo_that_stops_early, 6),
}
"""The child's module, its task, and the steps that it takes."""


@dataclass(frozen=True)
class Comparison:
    kills: list[int]
    """The steps at whose report the child was killed."""
    most_lost: int
    """Steps between a kill and the state that was gone on from, at most."""
    equal_weights: bool
    learnt: bool
    """The weights are not those of the base."""
    expected: dict[int, dict[str, Any]]
    """What the undisturbed training logged, by step."""
    found: dict[int, dict[str, Any]]


async def compare(kind: str, tiny: Path, folder: Path) -> Comparison:
    module, make, num_steps = KINDS[kind]
    undisturbed = await _train(module, make(tiny, folder / "whole"), None)
    task = {**make(tiny, folder / "killed"), "state": str(folder / ".killed.state")}
    task["config"] |= {"save_every_steps": SAVE_EVERY}
    kills = sorted(Random(kind).sample(range(1, num_steps + 1), NUM_KILLS))
    runs = [await _train(module, task, kill_at) for kill_at in [*kills, None]]
    resumed = [_resumed_at(run) for run in runs[1:]]
    expected, found = _metrics([undisturbed]), _metrics(runs)
    if resumed[-1] == num_steps:
        for name in OF_THE_END:
            expected[num_steps].pop(name)
    return Comparison(
        kills=kills,
        most_lost=max(kill - at for kill, at in zip(kills, resumed, strict=True)),
        equal_weights=same_weights(folder / "killed", folder / "whole"),
        learnt=not same_weights(folder / "killed", tiny),
        expected=expected,
        found=found,
    )


async def _train(module: str, task: dict[str, Any], kill_at: int | None) -> Reports:
    """Train in a child, which is killed as soon as it reports the step."""
    reports: Reports = []
    try:
        async for said in run_child(module, task, _answer):
            reports.append(said)
            if kill_at is not None and said.get("step") == kill_at:
                (child,) = (c for c in psutil.Process().children() if module in c.cmdline())
                os.kill(child.pid, signal.SIGKILL)
    except TrainingKilled:
        assert kill_at is not None
    return reports


async def _answer(question: dict[str, Any]) -> dict[str, Any]:
    if question["step"]:
        assert len(question["against"]) == len(question["answers"])
    return {"go_on": question["step"] < 6}


def _resumed_at(reports: Reports) -> int:
    return max((said["resumed_at"] for said in reports if "resumed_at" in said), default=0)


def _metrics(runs: list[Reports]) -> dict[int, dict[str, Any]]:
    """What was logged, by step; the later of two wins, as in the database."""
    merged: dict[int, dict[str, Any]] = {}
    for said in (said for run in runs for said in run if "metrics" in said):
        found = {k: v for k, v in said["metrics"].items() if k not in OF_THE_CLOCK}
        merged.setdefault(said["step"], {}).update(found)
    return merged
