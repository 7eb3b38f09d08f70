"""Training on a GPU is the training that the CPU does, and leaves the GPU's memory free."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.trainer import dpo
from services.trainer.saved_state import States
from tests.gpu.needs import GPU
from tests.gpu.trainings import LORA, losses, reports_of, task_of, without_gpu

pytestmark = GPU
FULL = {"kind": "full"}


@pytest.mark.parametrize("weights", [FULL, LORA], ids=["full", "lora"])
def test_losses_are_those_of_the_cpu(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Any]
) -> None:
    """Within what bf16 rounds: 2^-8 of log-probabilities whose loss starts at 0.69."""
    on_gpu = losses(reports_of(task_of(tiny, tmp_path / "gpu", weights=weights)))
    without_gpu(monkeypatch)
    on_cpu = losses(reports_of(task_of(tiny, tmp_path / "cpu", weights=weights)))
    assert len(on_gpu) == 4
    assert max(on_gpu) - min(on_gpu) > 0.005  # the policy has left its reference
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)


def test_adapters_are_in_float32_on_a_base_in_bf16_on_the_gpu(tiny: Path, tmp_path: Path) -> None:
    model = dpo.build(task_of(tiny, tmp_path, weights=LORA), io.StringIO()).model
    found = {
        (weight.requires_grad, weight.dtype, weight.device.type) for weight in model.parameters()
    }
    assert found == {(True, torch.float32, "cuda"), (False, torch.bfloat16, "cuda")}


def test_a_training_that_is_over_gives_the_memory_back(tiny: Path, tmp_path: Path) -> None:
    """The canaries, and an engine that wakes, need it."""
    before = torch.cuda.memory_allocated()
    dpo.train(task_of(tiny, tmp_path), io.StringIO())
    assert torch.cuda.max_memory_allocated() > before
    assert torch.cuda.memory_allocated() <= before


def test_a_stopped_training_goes_on_to_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    whole = task_of(tiny, tmp_path / "whole")
    reports_of(whole)
    parted = {**task_of(tiny, tmp_path / "parted", save_every_steps=1)}
    parted["state"] = str(tmp_path / ".state")
    states = States(tmp_path / ".state")
    channel = _StopsAfterTwoSteps(states)
    dpo.train(parted, channel)
    states.ask_to_stop(False)
    reports = reports_of(parted)
    assert {"resumed_at": 2} in reports
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    found = load_file(tmp_path / "parted" / "model.safetensors")
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


class _StopsAfterTwoSteps(io.StringIO):
    """A channel that asks the training to stop when it tells of its second saved state."""

    def __init__(self, states: States) -> None:
        super().__init__()
        self._states = states

    def write(self, text: str) -> int:
        if '"saved_step": 2' in text:
            self._states.ask_to_stop(True)
        return super().write(text)
