"""Trainings on a tiny model: their tasks, and the child that runs them with or without a GPU."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check_models import Lengths, pairs
from rewardloop.config import Training
from services.trainer.child import run_child

LORA = {"kind": "lora", "rank": 4, "alpha": 8}
LENGTHS = Lengths(max_length=88, max_answer=48, scale=0.05)


def task_of(base: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Four steps of DPO."""
    config = Training(
        **{
            "learning_rate": 3e-3,
            "learning_rate_floor": 3e-4,
            "batch_size": 4,
            "micro_batch_size": 2,
            "dropout": 0.0,
            "max_length": 128,
            **changes,
        }
    )
    return {
        "base": str(base),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "pairs": pairs(16, LENGTHS),
    }


def reports_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Train in a child, as the service does."""

    async def listen() -> list[dict[str, Any]]:
        return [said async for said in run_child("services.trainer.dpo", task)]

    return asyncio.run(listen())


def losses(reports: list[dict[str, Any]]) -> list[float]:
    return [said["metrics"]["loss"] for said in reports if "loss" in said.get("metrics", {})]


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that start from now on see none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
