"""Adapters: what is trained of them, and what is published."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from trl.trainer import dpo_trainer

from rewardloop import checkpoints
from rewardloop.errors import InvalidInput
from rewardloop.merging import merge
from services.trainer import adapters, dpo, sft
from services.trainer.canaries import write_canaries
from services.trainer.job import _move_files
from services.trainer.saved_state import States, identity
from services.trainer.start import start_from
from tests.e2e.adapter_versions import CONFIG, WEIGHTS, published_root, task_from
from tests.e2e.test_dpo import LORA, losses, task_of, train
from tests.e2e.test_early_stopping import same_weights, sft_task
from tests.e2e.test_stopped_training import Channel, trained
from tests.e2e.tiny_model import byte_tokenizer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
FULL = {"kind": "full"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_root(tmp_path_factory.mktemp("adapters") / "root")


def tensors(root: Path, version: str) -> dict[str, torch.Tensor]:
    return load_file(root / version / WEIGHTS)


def whole(root: Path, version: str, into: Path) -> dict[str, torch.Tensor]:
    merge(root, version, into)
    return load_file(into / "model.safetensors")


def built(task: dict[str, Any]) -> Any:
    return dpo.build(task, io.StringIO())


# What is trained.


def held(task: dict[str, Any]) -> dict[bool, set[torch.dtype]]:
    """Types of the weights that are trained, and of those that are not."""
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for weight in built(task).model.parameters():
        found[weight.requires_grad].add(weight.dtype)
    return found


@pytest.mark.parametrize("parent", ["m0", "m1"])
def test_adapters_are_trained_in_float32_on_a_base_in_bf16(
    root: Path, tmp_path: Path, parent: str
) -> None:
    task = task_from(root, parent, tmp_path, weights=LORA)
    assert held(task) == {True: {torch.float32}, False: {torch.bfloat16}}


@pytest.mark.parametrize("parent", ["m0", "m1"])
def test_whole_weights_are_trained_in_float32(root: Path, tmp_path: Path, parent: str) -> None:
    assert held(task_from(root, parent, tmp_path)) == {True: {torch.float32}, False: set()}


def test_a_training_begins_with_its_parents_adapter_bit_for_bit(root: Path, tmp_path: Path) -> None:
    task = task_from(root, "m1", tmp_path / "out", weights=LORA)
    trainer = built(task)
    assert list(trainer.model.peft_config) == ["default"]
    adapters.save(trainer.model, trainer.processing_class, task)
    begun, parents = load_file(tmp_path / "out" / WEIGHTS), tensors(root, "m1")
    assert set(begun) == set(parents)
    assert all(torch.equal(begun[name], parents[name]) for name in begun)


def test_the_reference_is_base_and_adapter(root: Path, tmp_path: Path) -> None:
    """Its sums are those of m1, and not those of the base."""
    pairs = {
        parent: built(task_from(root, parent, tmp_path, weights=LORA)).train_dataset[0]
        for parent in ("m0", "m1")
    }
    merge(root, "m1", tmp_path / "m1")
    task = {**task_of(tmp_path / "m1", tmp_path / "x"), "adapter": None}
    expected = built(task).train_dataset[0]
    for side in ("ref_chosen_logps", "ref_rejected_logps"):
        of_adapter, of_base = (abs(pairs[p][side] - expected[side]) for p in ("m1", "m0"))
        assert of_adapter < 1  # of 111: its base is held in bf16
        assert of_base > 3 * of_adapter


def test_the_first_loss_is_that_of_a_policy_like_its_reference(root: Path, tmp_path: Path) -> None:
    found = losses(train(task_from(root, "m1", tmp_path / "out", weights=LORA)))
    assert found[0] == pytest.approx(0.6931, abs=0.005)
    assert found[-1] < found[0]


def test_whole_weights_are_trained_from_base_and_adapter(root: Path, tmp_path: Path) -> None:
    model = built(task_from(root, "m1", tmp_path)).model
    expected = whole(root, "m1", tmp_path / "m1")
    for name, weight in model.named_parameters():
        assert torch.equal(weight.detach(), expected[name]), name


def test_examples_train_adapters_too(root: Path, tmp_path: Path) -> None:
    begin = task_from(root, "m1", tmp_path, weights=LORA)
    task = sft_task(root / "m0", tmp_path / "out", weights=LORA)
    sft.train({**task, "adapter": begin["adapter"]}, io.StringIO())
    found, before = load_file(tmp_path / "out" / WEIGHTS), tensors(root, "m1")
    assert not any(torch.equal(found[name], before[name]) for name in found)


def test_an_adapter_that_is_trained_on_goes_on_from_a_saved_state_bit_for_bit(
    root: Path, tmp_path: Path
) -> None:
    how = {"weights": LORA, "dropout": 0.3}
    task = task_from(root, "m1", tmp_path / "out", **how)
    task |= {"state": str(tmp_path / ".out.state")}
    task["config"] |= {"save_every_steps": 1}
    states = States(Path(task["state"]))
    trained(dpo, task, Channel(at=2, then=lambda: states.ask_to_stop(True)))
    states.ask_to_stop(False)
    assert not (tmp_path / "out" / WEIGHTS).exists()
    (saved, *_) = states.listed()
    assert not (saved.folder / dpo.REFERENCE).exists()
    assert trained(dpo, task).told("resumed_at") == [saved.step]
    trained(dpo, task_from(root, "m1", tmp_path / "whole", **how))
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_a_state_of_another_adapter_on_the_same_base_is_not_gone_on_from(root: Path) -> None:
    one, other = (
        identity(task_from(root, parent, root / "none", weights=LORA)) for parent in ("m1", "m2")
    )
    assert {part for part in one if one[part] != other[part]} == {"base"}


def test_another_rank_than_the_parents_is_refused_before_training(root: Path) -> None:
    manifest = checkpoints.verify(root / "m1")
    with pytest.raises(InvalidInput, match=r"rank 4 and alpha 8.*rank 8.*export-model m1"):
        start_from(root / "m1", manifest, {"kind": "lora", "rank": 8, "alpha": 8})


def test_a_model_whose_layers_are_turned_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=len(tokenizer))
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    task = task_of(tmp_path, tmp_path / "out", weights=LORA)
    with pytest.raises(ValueError, match=r"gpt2.*cannot be trained by adapters.*kind: full"):
        adapters.load_policy(task)


# What is published.


def test_a_version_is_the_adapter_alone_and_names_its_base(root: Path) -> None:
    base = checkpoints.as_base(checkpoints.read_manifest(root / "m0"))
    for version in ("m1", "m2"):
        manifest = checkpoints.verify(root / version)
        assert set(manifest["files"]) == {CONFIG, WEIGHTS, "canaries.json"}
        assert manifest["base"] == base
        assert checkpoints.base_of(root, version) == "m0"
        said = json.loads((root / version / CONFIG).read_text())
        assert (said["base_model_name_or_path"], said["r"], said["lora_alpha"]) == ("m0", 4, 8)
        assert said["target_modules"] == sorted(said["target_modules"])
    assert checkpoints.base_of(root, "m0") is None


def test_merged_weights_are_those_of_peft_bit_for_bit(root: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(root / "m0", dtype=torch.float32)
    peft = PeftModel.from_pretrained(model, str(root / "m2")).merge_and_unload()
    peft.save_pretrained(tmp_path / "peft")
    merge(root, "m2", tmp_path / "ours")
    one, other = (tmp_path / name / "model.safetensors" for name in ("peft", "ours"))
    assert one.read_bytes() == other.read_bytes()
    assert not same_weights(tmp_path / "ours", root / "m0")


def test_merged_weights_are_written_in_the_bases_dtype(root: Path, tmp_path: Path) -> None:
    halved = tmp_path / "root" / "m0"
    halved.mkdir(parents=True)
    exact = load_file(root / "m0" / "model.safetensors")
    save_file({name: weight.bfloat16() for name, weight in exact.items()}, halved / "x.safetensors")
    (tmp_path / "root" / "m1").mkdir()
    for name in (CONFIG, WEIGHTS, "manifest.json"):
        (tmp_path / "root" / "m1" / name).write_bytes((root / "m1" / name).read_bytes())
    merge(tmp_path / "root", "m1", tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "x.safetensors")
    changes, name = tensors(root, "m1"), "model.layers.0.mlp.up_proj"
    a, b = (changes[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = exact[f"{name}.weight"].bfloat16().float() + (b @ a) * 2
    assert torch.equal(found[f"{name}.weight"], expected.bfloat16())
    assert found["model.norm.weight"].dtype == torch.bfloat16


def test_an_adapter_changes_its_layers_by_matrices_of_its_rank(root: Path, tmp_path: Path) -> None:
    before, after = (whole(root, version, tmp_path / version) for version in ("m0", "m2"))
    for name in before:
        change = (after[name] - before[name]).double()
        if "_proj." not in name:
            assert not change.any(), name
            continue
        values = torch.linalg.svdvals(change)
        assert values[0] > 1e-3, name
        assert values[4] < 1e-3 * values[0], name


def test_full_weights_are_copied(root: Path, tmp_path: Path) -> None:
    merge(root, "m0", tmp_path / "copy")
    ours = {"manifest.json", "canaries.json"}
    wanted = {p.name: p.read_bytes() for p in (root / "m0").iterdir() if p.name not in ours}
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == wanted


def test_the_canaries_are_those_of_the_merged_weights(root: Path, tmp_path: Path) -> None:
    merge(root, "m2", tmp_path / "m2")
    written = (root / "m2" / "canaries.json").read_text()
    write_canaries(tmp_path / "m2")
    assert json.loads((tmp_path / "m2" / "canaries.json").read_text()) == json.loads(written)


def test_adapters_that_learnt_nothing_are_their_base_bit_for_bit(
    root: Path, tmp_path: Path
) -> None:
    """Adapters that were not trained add nothing: B is 0."""
    task = task_from(root, "m0", root / ".idle", weights=LORA)
    trainer = built(task)
    adapters.save(trainer.model, trainer.processing_class, task)
    about = {"base": checkpoints.as_base(checkpoints.read_manifest(root / "m0"))}
    checkpoints.publish(root, "idle", lambda folder: _move_files(root / ".idle", folder), about)
    merge(root, "idle", tmp_path / "idle")
    assert same_weights(tmp_path / "idle", root / "m0")


def test_no_hash_of_all_weights_is_taken(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> str:
        raise AssertionError("half a minute of an 8B model's training")

    monkeypatch.setattr(dpo_trainer, "hash_module", refuse)
    built(task_from(root, "m0", tmp_path))
    assert dpo_trainer.hash_module is refuse
