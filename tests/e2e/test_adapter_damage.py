"""Adapters: what of them is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid
from rewardloop.merging import merge
from rewardloop.servable import require_servable
from tests.e2e.adapter_versions import CONFIG, WEIGHTS, published_root
from tests.security.damage import rewrite_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_root(tmp_path_factory.mktemp("adapters") / "root")


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
