"""SmolLM2 and adapters of it with random numbers, as the trainer would publish them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop import checkpoints
from services.trainer import base_model
from services.trainer.canaries import write_canaries

BASE = "m0"
RANK = 16
NOISE = 0.01
"""Standard deviation of B: enough for other words, and not for nonsense."""


def publish(root: Path, adapters: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Manifests by version, the base first."""
    base = checkpoints.publish(root, BASE, lambda folder: base_model._write(None, folder), {})
    named = {"parent": BASE, "base": checkpoints.as_base(base)}
    found = {BASE: base}
    for seed, version in enumerate(adapters):

        def write(folder: Path, seed: int = seed) -> None:
            _write(root, folder, seed)

        found[version] = checkpoints.publish(root, version, write, named)
    return found


def _write(root: Path, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(root / BASE, dtype=torch.float32)
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(base, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=NOISE)
    adapted.peft_config["default"].base_model_name_or_path = BASE
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    merged = folder / "merged"
    adapted.merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(root / BASE).save_pretrained(merged)
    write_canaries(merged)
    shutil.move(merged / checkpoints.CANARIES, folder)
    shutil.rmtree(merged)
