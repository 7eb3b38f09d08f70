"""SmolLM2 and adapters of it with random numbers, as the trainer would publish them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from rewardloop import checkpoints
from services.trainer import adapters, base_model

BASE = "m0"
RANK = 16
NOISE = 0.03
"""Standard deviation of B: an engine without the adapter is far outside of the canaries' bound."""


def publish(root: Path, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Manifests by version, the base first."""
    base = checkpoints.publish(root, BASE, lambda folder: base_model._write(None, folder), {})
    named = {"parent": BASE, "base": checkpoints.as_base(base)}
    found = {BASE: base}
    for seed, version in enumerate(names):

        def write(folder: Path, seed: int = seed) -> None:
            _write(root, folder, seed)

        found[version] = checkpoints.publish(root, version, write, named)
    return found


def _write(root: Path, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(root / BASE, dtype=torch.float32)
    adapted = get_peft_model(base, adapters.lora({"rank": RANK, "alpha": 2 * RANK}))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=NOISE)
    adapters.save(adapted, None, {"base": root / BASE, "output": folder})
