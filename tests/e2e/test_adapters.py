"""Adapters: what is trained of them, what is published, and what of it is refused."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from trl.trainer import dpo_trainer

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid, InvalidInput
from rewardloop.merging import merge
from rewardloop.servable import require_servable
from services.trainer import adapters, dpo, sft
from services.trainer.canaries import write_canaries
from services.trainer.job import _move_files
from services.trainer.saved_state import States, identity
from services.trainer.start import start_from
from tests.e2e.test_dpo import LORA, losses, task_of, train
from tests.e2e.test_early_stopping import same_weights, sft_task
from tests.e2e.test_stopped_training import Channel, trained
from tests.e2e.tiny_model import byte_tokenizer, write_tiny_model
from tests.security.damage import rewrite_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FULL = {"kind": "full"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m0 has full weights, m1 is an adapter on it, m2 was trained on from m1."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("adapters") / "root"
    checkpoints.publish(root, "m0", lambda folder: _written(folder), {"parent": None})
    published(root, "m1", "m0", weights=LORA)
    published(root, "m2", "m1", weights=LORA)
    return root


def _written(folder: Path) -> None:
    write_tiny_model(folder)


def task_from(root: Path, parent: str, output: Path, **changes: Any) -> dict[str, Any]:
    """As the trainer makes it."""
    task = task_of(root / "none", output, **changes)
    manifest = checkpoints.verify(root / parent)
    return {**task, **start_from(root / parent, manifest, task["config"]["weights"]).task}


def published(root: Path, version: str, parent: str, **changes: Any) -> dict[str, Any]:
    """Trained from `parent` and published as the trainer does."""
    staging = root / f".{version}.attempt-1"
    task = task_from(root, parent, staging, **changes)
    assert losses(train(task))
    start = start_from(root / parent, checkpoints.verify(root / parent), task["config"]["weights"])
    about = {"parent": parent, **start.about}
    return checkpoints.publish(root, version, lambda folder: _move_files(staging, folder), about)


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


# What is refused.


def config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        said = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**said, **changes}))

    return edit


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return edit


def _first(found: dict[str, torch.Tensor]) -> str:
    return min(found)


def _not_finite(found: dict[str, torch.Tensor]) -> None:
    found[_first(found)][0, 0] = float("inf")


def _renamed(found: dict[str, torch.Tensor]) -> None:
    found["model.norm.weight"] = found.pop(_first(found))


def _shorter(found: dict[str, torch.Tensor]) -> None:
    found[_first(found)] = found[_first(found)][:, 1:].contiguous()


def _halved(found: dict[str, torch.Tensor]) -> None:
    found[_first(found)] = found[_first(found)].bfloat16()


def _added(found: dict[str, torch.Tensor]) -> None:
    found["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 64)


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a number that is none": (weights(_not_finite), "NaN or an infinity"),
    "a renamed tensor": (weights(_renamed), "its tensors are not those"),
    "another shape": (weights(_shorter), "its tensors are not those"),
    "another dtype": (weights(_halved), "its tensors are not those"),
    "an extra tensor": (weights(_added), "its tensors are not those"),
    "another rank": (config(r=8), "its tensors are not those"),
    "fewer targets": (config(target_modules=["q_proj"]), "its tensors are not those"),
    "a layer that the base lacks": (config(target_modules=["c_attn"]), "no linear layer c_attn"),
    "a layer by a part of its name": (config(target_modules=["proj"]), "no linear layer proj"),
    "targets by an expression": (config(target_modules=".*"), "target_modules"),
    "a rank of nothing": (config(r=0), "does not say r"),
    "an alpha of none": (config(lora_alpha=None), "does not say r"),
    "a base by its path": (config(base_model_name_or_path="../m0"), "no version id"),
    "another base": (config(base_model_name_or_path="m9"), "m9 is not there"),
    "an adapter as base": (config(base_model_name_or_path="m1"), "an adapter too"),
    "no base": (config(base_model_name_or_path=None), "no version id"),
    "what is not plain LoRA": (config(use_dora=True), "use_dora, which is not plain LoRA"),
    "ranks by layer": (config(rank_pattern={"q_proj": 2}), "rank_pattern"),
    "modules of its own": (config(modules_to_save=["lm_head"]), "modules_to_save"),
    "a key of a later peft": (config(use_something=1), "use_something"),
    "an initialisation that changes the base": (config(init_lora_weights="pissa"), "init_lora"),
    "another method": (config(peft_type="LOHA"), "peft_type"),
    "code": (config(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "a tokenizer of its own": (
        lambda folder: (folder / "tokenizer.json").write_text("{}") and None,
        "delete tokenizer.json",
    ),
    "weights of its own": (
        lambda folder: save_file({"x": torch.ones(1)}, folder / "model.safetensors"),
        "delete model.safetensors",
    ),
    "a file that is no JSON": (lambda folder: (folder / CONFIG).write_text("{") and None, "JSON"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "same base"),
}


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    """A root with m0, m1 and m2 that may be damaged."""
    shutil.copytree(root, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_adapter_is_refused_though_its_manifest_agrees(copied: Path, kind: str) -> None:
    damage, told = DAMAGED[kind]
    damage(copied / "m2")
    rewrite_manifest(copied / "m2")
    with pytest.raises(CheckpointInvalid, match=told):
        _require(copied / "m2")


def _require(folder: Path) -> None:
    """As an engine that merges does."""
    checkpoints.verify(folder)
    require_servable(folder)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_adapter_is_not_published(copied: Path, kind: str) -> None:
    damage, told = DAMAGED[kind]
    said = checkpoints.read_manifest(copied / "m2")

    def write(folder: Path) -> None:
        for name in said["files"]:
            (folder / name).write_bytes((copied / "m2" / name).read_bytes())
        damage(folder)

    with pytest.raises(CheckpointInvalid, match=told):
        checkpoints.publish(copied, "m3", write, {"parent": "m1", "base": said["base"]})
    assert not (copied / "m3").exists()


def manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / "m2" / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def flip(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    return edit


def _without_base(root: Path) -> None:
    path = root / "m2" / "manifest.json"
    said = json.loads(path.read_text())
    del said["base"]
    path.write_text(json.dumps(said))


def _base_rewritten(root: Path) -> None:
    flip("m0/model.safetensors")(root)
    rewrite_manifest(root / "m0")


def _base_lost(root: Path) -> None:
    (root / "m0").rename(root / ".m0")


CUT_OFF: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped bit": (flip(f"m2/{WEIGHTS}"), "m2: adapter_model.safetensors differ"),
    "a flipped bit in its base": (flip("m0/model.safetensors"), "m0: model.safetensors differ"),
    "a base that was rewritten": (_base_rewritten, "of its base m0 is not the one"),
    "a base that is lost": (_base_lost, "m0 is not there"),
    "a manifest without base": (_without_base, "same base"),
    "another base's manifest": (
        manifest(base={"version": "m0", "manifest_sha256": "0" * 64}),
        "of its base m0 is not the one",
    ),
    "another base": (manifest(base={"version": "m1", "manifest_sha256": ""}), "same base"),
    "a base by its path": (manifest(base={"version": "../m0", "manifest_sha256": ""}), "damaged"),
    "a base that is none": (manifest(base="m0"), "damaged"),
}


@pytest.mark.parametrize("kind", CUT_OFF)
def test_an_adapter_is_verified_with_its_base(copied: Path, kind: str) -> None:
    damage, told = CUT_OFF[kind]
    damage(copied)
    with pytest.raises(CheckpointInvalid, match=told):
        checkpoints.verify(copied / "m2")


def test_a_base_that_is_written_to_is_a_change_of_the_adapters_state(copied: Path) -> None:
    state = checkpoints.state_of(copied / "m2")
    checkpoints.require_state(copied / "m2", state)
    flip("m0/model.safetensors")(copied)
    with pytest.raises(CheckpointInvalid, match="was changed while"):
        checkpoints.require_state(copied / "m2", state)


def test_a_merge_that_fails_leaves_nothing(copied: Path, tmp_path: Path) -> None:
    weights(_not_finite)(copied / "m2")
    with pytest.raises(CheckpointInvalid, match="is not finite"):
        merge(copied, "m2", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
