"""A step in several forward passes is TRL's step in one: loss, gradients and what is logged."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from rewardloop.config import Training
from services.trainer import dpo, optimisation
from services.trainer.grouping import Limit
from services.trainer.rows import Maker
from tests.e2e.test_dpo_reference import shift
from tests.e2e.tiny_model import gradients, user, worst_difference

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
TEXTS = [
    ("Say yes.", "Yes, gladly.", "No, never ever, not for all the tea."),
    ("Two plus two?", "Four, as everybody will have learnt at school.", "Five."),
    ("Hi", "Hello!", "Go."),
    ("Tell me of the sea, at some length, as you would tell a child of it.", "Blue.", "Wet, so"),
    ("Count", "One two three four five", "One"),
]
CUT = 3
"""This pair's rejected side was cut, so it has no end."""


def task_of(tiny: Path, output: Path, loss: dict[str, Any], smoothing: float) -> dict[str, Any]:
    config = Training(loss=loss, beta=0.3, dropout=0.0, batch_size=5, micro_batch_size=1)  # type: ignore[arg-type]
    pairs = [
        {
            "prompt": user(prompt),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "rejected_is_cut": n == CUT,
        }
        for n, (prompt, chosen, rejected) in enumerate(TEXTS)
    ]
    return {
        "base": str(tiny),
        "output": str(output),
        "config": config.model_dump(mode="json"),
        "seed": 1,
        "label_smoothing": smoothing,
        "pairs": pairs,
    }


class OfTokenIds(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer as it is, but for the rows, which are tokenised."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def by_trl(task: dict[str, Any]) -> OfTokenIds:
    """The reference in each step, everything in one pass of padded rows."""
    config = task["config"]
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model = AutoModelForCausalLM.from_pretrained(task["base"])
    rows, _ = optimisation.made_rows(
        Maker.pairs, task["pairs"], model, tokenizer, config, io.StringIO()
    )
    arguments = DPOConfig(
        output_dir=task["output"],
        per_device_train_batch_size=len(rows),
        **dpo.loss_arguments(config, task["label_smoothing"]),
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_dropout=False,
    )
    return OfTokenIds(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def step(trainer: Any) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and what is logged of a step over all pairs."""
    shift(trainer.model)
    (batch,) = trainer.get_train_dataloader()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(trainer.model, batch)
    logged = {name: sum(v) / len(v) for name, v in trainer._metrics["train"].items()}
    return float(loss), gradients(trainer.model), logged


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("limit", [Limit(num_rows=2), Limit(num_tokens=150), Limit()])
@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [
        ({"kind": "dpo"}, 0.0),
        ({"kind": "dpo"}, 0.2),
        ({"kind": "dpo_likelihood", "weight": 0.7}, 0.0),
        ({"kind": "dpo_likelihood", "weight": 0.7}, 0.2),
    ],
)
def test_a_step_in_parts_is_trls_step(
    tiny: Path, tmp_path: Path, limit: Limit, loss: dict[str, Any], smoothing: float
) -> None:
    task = task_of(tiny, tmp_path, loss, smoothing)
    ours = dpo.build(task, io.StringIO())
    ours.limit = limit
    expected, expected_gradients, expected_logs = step(by_trl(task))
    found, found_gradients, found_logs = step(ours)
    assert found == pytest.approx(expected, rel=1e-5)
    assert worst_difference(found_gradients, expected_gradients) < 1e-5
    assert found_logs == pytest.approx(expected_logs, rel=1e-4, abs=1e-5)


@pytest.mark.usefixtures("in_float32")
def test_the_weights_of_a_losss_terms_are_as_before_behind_a_step(
    tiny: Path, tmp_path: Path
) -> None:
    ours = dpo.build(task_of(tiny, tmp_path, {"kind": "dpo"}, 0.2), io.StringIO())
    before = list(ours.loss_weights)
    step(ours)
    assert ours.loss_weights == before


def test_a_whole_training_tells_its_passes_and_what_it_looked_up(
    tiny: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, tmp_path / "out", {"kind": "dpo"}, 0.0)
    task["reference"] = {"folder": str(tmp_path / ".tiny.reference"), "base": "a digest"}

    def told(task: dict[str, Any]) -> dict[str, Any]:
        channel = io.StringIO()
        dpo.build(task, channel).train()
        reports = [json.loads(line) for line in channel.getvalue().splitlines()]
        (found,) = [report for report in reports if "forward_passes" in report]
        return {name: found[name] for name in ("forward_passes", "num_reference_logps_known")}

    passes = {"num_rows": 1, "num_tokens": None, "gradient_checkpointing": False}
    assert told(task) == {"forward_passes": passes, "num_reference_logps_known": 0}
    turned = [{**p, "chosen": p["rejected"], "rejected": p["chosen"]} for p in task["pairs"]]
    for pair in turned:
        pair["chosen_is_cut"] = pair.pop("rejected_is_cut")
    assert told({**task, "pairs": turned})["num_reference_logps_known"] == 2 * len(TEXTS)
