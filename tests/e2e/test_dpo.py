"""The trainer's child on a tiny random model: TRL does what the config says."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rewardloop.config import Training
from services.trainer.child import run_child
from tests.e2e.real_demo import Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]
PAIR = {
    "prompt": [{"role": "user", "content": "Say yes."}],
    "chosen": [{"role": "assistant", "content": "Yes, gladly."}],
    "rejected": [{"role": "assistant", "content": "No, never ever."}],
}


@pytest.fixture(scope="module")
def tiny(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with the demo model's tokenizer."""
    base = demo.home / "checkpoints" / demo.summary["iterations"][0]["base_version"]
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(tiny: Path, output: Path, **changes: Any) -> list[dict[str, Any]]:
    """Four steps of DPO on one pair over and over; returns what was logged."""
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
    task = {
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "pairs": [PAIR] * 16,
    }

    async def collect() -> list[dict[str, Any]]:
        return [report async for report in run_child("services.trainer.dpo", task)]

    return asyncio.run(collect())


def test_full_training_follows_the_config(tiny: Path, tmp_path: Path) -> None:
    reports = train(tiny, tmp_path / "out")
    assert reports[0] == {"num_steps": 4}
    steps = [r["metrics"] for r in reports if "loss" in r.get("metrics", {})]
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=0.005)
    assert steps[-1]["loss"] < 0.45
    assert steps[-1]["rewards/margins"] > 0.5
    # Linear from 3e-3 to 3e-4 in four steps, logged before each decay.
    rates = [step["learning_rate"] for step in steps]
    assert rates == pytest.approx([3e-3, 2.325e-3, 1.65e-3, 9.75e-4])
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "canaries.json"} <= written
    assert not any(name.endswith(".bin") for name in written)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_dropout_is_in_force(tiny: Path, tmp_path: Path) -> None:
    """With dropout the policy differs from its reference before the first step."""
    reports = train(tiny, tmp_path / "out", dropout=0.5)
    losses = [r["metrics"]["loss"] for r in reports if "loss" in r.get("metrics", {})]
    assert losses[0] != pytest.approx(0.6931, abs=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["attention_dropout"] == 0.0


def test_lora_is_merged_into_whole_weights(tiny: Path, tmp_path: Path) -> None:
    reports = train(tiny, tmp_path / "out", weights={"kind": "lora", "rank": 4, "alpha": 8})
    losses = [r["metrics"]["loss"] for r in reports if "loss" in r.get("metrics", {})]
    assert losses[-1] < losses[0]
    before = load_file(tiny / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj." in name}
