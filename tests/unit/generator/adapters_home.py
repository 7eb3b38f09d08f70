"""Adapters for the fake engine, whose base m0 is no model, and for a base of real tensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from rewardloop import checkpoints
from tests.security import small_checkpoint

TARGET = "q_proj"
RANK = 2
SIDES = {"A": (RANK, 4), "B": (4, RANK)}
"""Of the small checkpoint's one layer of that name."""


def config(base: str, **changed: Any) -> dict[str, Any]:
    plain = {"peft_type": "LORA", "base_model_name_or_path": base, "target_modules": [TARGET]}
    return {**plain, "r": RANK, "lora_alpha": 4, **changed}


def tensors(seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    layer = f"base_model.model.model.layers.0.self_attn.{TARGET}"
    return {
        f"{layer}.lora_{side}.weight": chance.random(shape, dtype=np.float32)
        for side, shape in SIDES.items()
    }


def canary(logprob: float) -> str:
    """One that the fake engine agrees with where its log-probabilities are `logprob`."""
    tokens = {"prompt_token_ids": [1, 2], "continuation_token_ids": [3, 4]}
    return json.dumps({"canaries": [{**tokens, "logprobs": [logprob, logprob]}]})


def publish_adapter(
    root: Path, version: str, *, base: str = "m0", logprob: float = -2.0, **changed: Any
) -> dict[str, Any]:
    """Publish an adapter of `base` whose canaries say `logprob`."""

    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(config(base, **changed)))
        number = sum(version.encode())
        (folder / "adapter_model.safetensors").write_bytes(save(tensors(number)))
        (folder / checkpoints.CANARIES).write_text(canary(logprob))

    named = checkpoints.as_base(checkpoints.read_manifest(root / base))
    return checkpoints.publish(root, version, write, {"base": named})


def publish_model(root: Path, version: str, logprob: float = -1.0) -> None:
    """Full weights of real tensors, to which an adapter can be added."""
    small_checkpoint.publish(root, version, seed=0, **{"canaries.json": canary(logprob)})
