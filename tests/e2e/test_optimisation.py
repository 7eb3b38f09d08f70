"""What TRL would decide unasked is in the config, or told with the training."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer import dpo, optimisation, sft
from tests.e2e.test_dpo import losses, task_of, train
from tests.e2e.tiny_model import user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.mark.parametrize(("norm", "expected"), [(0.5, 0.5), (None, 0.0)])
def test_the_gradient_norm_is_the_configs(
    tiny: Path, tmp_path: Path, norm: float | None, expected: float
) -> None:
    """TRL clips at no norm where it is 0."""
    task = task_of(tiny, tmp_path, max_gradient_norm=norm)
    examples = [{"prompt": user("Say yes."), "completion": "Yes, gladly."}]
    for trainer in (
        dpo.build(task, io.StringIO()),
        sft.build({**task, "examples": examples}, io.StringIO()),
    ):
        assert trainer.args.max_grad_norm == expected


def test_a_config_that_was_stored_before_the_key_is_clipped_as_it_was(
    tiny: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, tmp_path)
    del task["config"]["max_gradient_norm"]
    assert dpo.build(task, io.StringIO()).args.max_grad_norm == 1.0


def test_a_gradient_of_almost_nothing_teaches_nothing(tiny: Path, tmp_path: Path) -> None:
    """Far below AdamW's epsilon of 1e-8, a gradient moves no weight."""
    clipped = losses(train(task_of(tiny, tmp_path / "clipped", max_gradient_norm=1e-14)))
    assert clipped == pytest.approx([0.6931] * 4, abs=0.005)
    assert losses(train(task_of(tiny, tmp_path / "free", max_gradient_norm=None)))[-1] < 0.45


def test_each_training_tells_its_optimiser(tiny: Path, tmp_path: Path) -> None:
    channel = io.StringIO()
    dpo.build(task_of(tiny, tmp_path, max_gradient_norm=2.0), channel).train()
    reports: list[dict[str, Any]] = [json.loads(line) for line in channel.getvalue().splitlines()]
    (told,) = [report["optimiser"] for report in reports if "optimiser" in report]
    assert told == {
        "max_grad_norm": 2.0,
        "lr_scheduler_type": "polynomial",
        "bf16": True,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "warmup_steps": 0,
    }


def test_attention_is_not_planned_anew_for_every_length(tiny: Path) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    optimisation.load_model(str(tiny), dropout=0.0)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
