"""Rows and checkpoints as tests write them by hand."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from rewardloop import checkpoints
from tests.integration.trainer_jobs import job, module  # noqa: F401 (fixtures)


def response_row(iteration_id: UUID, prompt_id: int, index: int) -> dict[str, Any]:
    return {
        "iteration_id": iteration_id,
        "prompt_id": prompt_id,
        "sample_index": index,
        "text": f"answer {index} to prompt {prompt_id}" + " and on" * index,
        "sampling": {},
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "finish_reason": "stop",
        "weight_version": "base",
    }


def judgement_row(response_id: int | None, index: int, score: float | None) -> dict[str, Any]:
    return {
        "response_id": response_id,
        "judge_index": index,
        "raw_text": "…",
        "score": score,
        "reason": "no_score" if score is None else None,
        "mode": "free",
        "rubric_version": "r",
        "judge_version": "base",
        "prompt_tokens": 11,
        "completion_tokens": 2,
    }


def write_checkpoint(folder: Path, version: str) -> None:
    """A checkpoint whose weights and canaries are unlike those of any other version."""
    chance = Random(version)
    weights = hashlib.sha512(version.encode()).digest()
    (folder / "model.safetensors").write_bytes(weights)
    canaries = [
        {
            "prompt_token_ids": [1, 2, 3 + number],
            "continuation_token_ids": [chance.randrange(100) for _ in range(8)],
            "logprobs": [-3 * chance.random() for _ in range(8)],
        }
        for number in range(2)
    ]
    document = {"dtype": "bfloat16", "canaries": canaries}
    (folder / checkpoints.CANARIES).write_text(json.dumps(document))
