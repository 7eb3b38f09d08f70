"""DPO on a tiny random model: TRL does what the config says. For the loss itself see
test_dpo_reference.py."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardloop.config import Training
from services.trainer import dpo
from services.trainer.child import run_child
from tests.e2e.tiny_model import in_float64, response_logprobs, user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PAIR = {
    "prompt": user("Say yes."),
    "chosen": [{"role": "assistant", "content": "Yes, gladly."}],
    "rejected": [{"role": "assistant", "content": "No, never ever."}],
}
LORA = {"kind": "lora", "rank": 4, "alpha": 8}


def task_of(tiny: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Four steps of DPO on one pair over and over."""
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
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "pairs": [PAIR] * 16,
    }


def train(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Train in this process; returns the reports."""
    channel = io.StringIO()
    dpo.train(task, channel)
    return [json.loads(line) for line in channel.getvalue().splitlines()]


def losses(reports: list[dict[str, Any]]) -> list[float]:
    return [r["metrics"]["loss"] for r in reports if "loss" in r.get("metrics", {})]


def test_a_child_follows_the_config(tiny: Path, tmp_path: Path) -> None:
    async def collect() -> list[dict[str, Any]]:
        task = task_of(tiny, tmp_path / "out")
        return [report async for report in run_child("services.trainer.dpo", task)]

    reports = asyncio.run(collect())
    assert reports[:2] == [{"num_steps": 4}, {"batch_size": 4}]
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


def test_the_canaries_say_what_rounding_does_to_them(tiny: Path, tmp_path: Path) -> None:
    train(task_of(tiny, tmp_path / "out"))
    folder = tmp_path / "out"
    said = json.loads((folder / "canaries.json").read_text())
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    differences = []
    for canary in said["canaries"]:
        ids = canary["prompt_token_ids"] + canary["continuation_token_ids"]
        logps_TV = exact(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
        first = len(canary["prompt_token_ids"]) - 1
        for t, (token, logprob) in enumerate(
            zip(canary["continuation_token_ids"], canary["logprobs"], strict=True)
        ):
            differences.append(abs(float(logps_TV[first + t, token]) - logprob))
    assert said["rounding_nats"] == pytest.approx(sum(differences) / len(differences), rel=1e-3)
    assert said["rounding_nats"] > 0


def test_dropout_is_in_force_and_not_published(tiny: Path, tmp_path: Path) -> None:
    """With dropout the policy differs from its reference before the first step."""
    first = losses(train(task_of(tiny, tmp_path, dropout=0.5)))[0]
    assert abs(first - 0.6931) > 0.01
    assert json.loads((tmp_path / "config.json").read_text())["attention_dropout"] == 0.0


def test_the_likelihood_term_is_the_chosen_answers_mean_per_token(
    tiny: Path, tmp_path: Path
) -> None:
    loss = {"kind": "dpo_likelihood", "weight": 0.5}
    first = losses(train(task_of(tiny, tmp_path, loss=loss)))[0]
    per_token = -response_logprobs(in_float64(tiny), "Say yes.", "Yes, gladly.").mean().item()
    assert first == pytest.approx(0.6931 + 0.5 * per_token, rel=0.01)


def test_smoothed_labels_are_learnt_less(tiny: Path, tmp_path: Path) -> None:
    plain = train(task_of(tiny, tmp_path / "plain"))
    smoothed = train({**task_of(tiny, tmp_path / "smoothed"), "label_smoothing": 0.3})
    assert losses(smoothed)[0] == pytest.approx(0.6931, abs=0.01)
    assert losses(smoothed)[-1] > losses(plain)[-1] + 0.1


def test_a_pair_whose_prompt_fills_max_length_is_dropped_and_reported(
    tiny: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, tmp_path)
    task["pairs"] = [{**PAIR, "prompt": user("x" * 200)}, *[PAIR] * 4]
    reports = train(task)
    assert reports[0]["num_dropped"] == 1
    assert "128" in reports[0]["why"]
    assert reports[1] == {"num_steps": 1}
    with pytest.raises(ValueError, match="nothing is left"):
        train({**task, "pairs": task["pairs"][:1]})
