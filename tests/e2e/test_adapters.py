"""Adapters: what is held in which precision, and what is published of them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl.trainer import dpo_trainer

from services.trainer import dpo
from services.trainer.whole_model import save
from tests.e2e.test_dpo import LORA, task_of, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    output = tmp_path_factory.mktemp("adapters")
    train(task_of(tiny, output, weights=LORA))
    return load_file(output / "model.safetensors")


def held(tiny: Path, tmp_path: Path, **changes: Any) -> dict[bool, set[torch.dtype]]:
    """Types of the weights that are trained, and of those that are not."""
    model = dpo.build(task_of(tiny, tmp_path, **changes), io.StringIO()).model
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for weight in model.parameters():
        found[weight.requires_grad].add(weight.dtype)
    return found


def test_adapters_are_trained_in_float32_on_a_base_in_bf16(tiny: Path, tmp_path: Path) -> None:
    assert held(tiny, tmp_path, weights=LORA) == {True: {torch.float32}, False: {torch.bfloat16}}


def test_whole_weights_are_trained_in_float32(tiny: Path, tmp_path: Path) -> None:
    assert held(tiny, tmp_path) == {True: {torch.float32}, False: set()}


def test_adapters_are_added_to_the_base_as_published_not_as_rounded(
    tiny: Path, trained: dict[str, torch.Tensor]
) -> None:
    """Adapters of rank 4 change a matrix by one of rank 4; rounding would leave none below full
    rank."""
    before = load_file(tiny / "model.safetensors")
    for name in (name for name in before if "_proj." in name):
        change = (trained[name] - before[name]).double()
        values = torch.linalg.svdvals(change)
        assert values[0] > 1e-3, name
        assert values[4] < 1e-3 * values[0], name
        assert trained[name].dtype == torch.float32


def test_what_has_no_adapter_is_published_bit_for_bit(
    tiny: Path, trained: dict[str, torch.Tensor]
) -> None:
    before = load_file(tiny / "model.safetensors")
    assert all(torch.equal(trained[n], before[n]) for n in before if "_proj." not in n)


def test_no_hash_of_all_weights_is_taken(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> str:
        raise AssertionError("half a minute of an 8B model's training")

    monkeypatch.setattr(dpo_trainer, "hash_module", refuse)
    dpo.build(task_of(tiny, tmp_path), io.StringIO())
    assert dpo_trainer.hash_module is refuse


def test_adapters_that_learnt_nothing_publish_their_base_bit_for_bit(
    tiny: Path, tmp_path: Path
) -> None:
    """Adapters that were not trained add nothing: B is 0."""
    trainer = dpo.build(task_of(tiny, tmp_path, weights=LORA), io.StringIO())
    save(trainer.model, trainer.processing_class, tmp_path / "saved")
    before = load_file(tiny / "model.safetensors")
    after = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"
