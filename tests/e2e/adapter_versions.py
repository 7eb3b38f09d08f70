"""Versions of a tiny model that are adapters, trained and published as the trainer does it."""

from pathlib import Path
from typing import Any

import torch

from rewardloop import checkpoints
from services.trainer.job import _move_files
from services.trainer.start import start_from
from tests.e2e.test_dpo import LORA, losses, task_of, train
from tests.e2e.tiny_model import write_tiny_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def published_root(root: Path) -> Path:
    """m0 has full weights, m1 is an adapter on it, m2 was trained on from m1."""
    torch.set_num_threads(1)
    checkpoints.publish(root, "m0", lambda folder: _written(folder), {"parent": None})
    published(root, "m1", "m0", weights=LORA)
    published(root, "m2", "m1", weights=LORA)
    return root


def _written(folder: Path) -> None:
    write_tiny_model(folder)


def task_from(root: Path, parent: str, output: Path, **changes: Any) -> dict[str, Any]:
    """As the trainer makes it."""
    task = task_of(root / "none", output, **changes)
    manifest = checkpoints.verify(root / parent)
    return {**task, **start_from(root / parent, manifest, task["config"]["weights"]).task}


def published(root: Path, version: str, parent: str, **changes: Any) -> dict[str, Any]:
    """Trained from `parent` and published as the trainer does."""
    staging = root / f".{version}.attempt-1"
    task = task_from(root, parent, staging, **changes)
    assert losses(train(task))
    start = start_from(root / parent, checkpoints.verify(root / parent), task["config"]["weights"])
    about = {"parent": parent, **start.about}
    return checkpoints.publish(root, version, lambda folder: _move_files(staging, folder), about)
