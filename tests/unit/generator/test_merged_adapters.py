"""An engine that merges: a swap as of full weights, from a folder that is gone afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rewardloop import checkpoints
from services.generator import candidate, scratch
from tests.security import small_checkpoint
from tests.unit.generator.adapters_home import RANK, publish_adapter, publish_model, tensors


@pytest.fixture
def merging(replica: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A replica on the model b0, with its adapters a1 and a2."""
    monkeypatch.setenv("REWARDLOOP_INITIAL_VERSION", "b0")
    monkeypatch.setenv("REWARDLOOP_ADAPTERS", "merge")
    publish_model(replica.root, "b0")
    for version in ("a1", "a2"):
        publish_adapter(replica.root, version, base="b0")
    replica.engine.loaded = "b0"
    replica.engine.logprobs |= {"b0": -1.0, "a1": -2.0, "a2": -2.0}
    return replica


def left_over(root: Path) -> list[str]:
    return [path.name for path in root.glob(".*")]


async def test_an_adapter_is_swapped_in_merged(merging: Any) -> None:
    assert (await merging.chat()).json()["weight_version"] == "b0"
    report = (await merging.activate("a1")).json()
    assert (report["version"], report["checksums"]["layer.0"]) == ("a1", "sum of a1")
    assert report["held_seconds"] > 0
    assert (await merging.chat()).json()["weight_version"] == "a1"
    assert (await merging.chat(model="a1")).json()["weight_version"] == "a1"
    assert left_over(merging.root) == []


async def test_what_is_loaded_is_base_plus_adapter(
    merging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    reload = merging.engine.collective_rpc

    async def watched(method: str, **given: Any) -> Any:
        if method == "reload_weights":
            found.update(load_file(Path(given["kwargs"]["weights_path"]) / "model.safetensors"))
        return await reload(method, **given)

    monkeypatch.setattr(merging.engine, "collective_rpc", watched)
    assert (await merging.activate("a1")).status_code == 200
    (a, b), base = tensors(sum(b"a1")).values(), small_checkpoint.tensors(0)
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert np.allclose(found.pop(changed), base.pop(changed) + 4 / RANK * b @ a, atol=1e-6)
    assert all(np.array_equal(found[name], base[name]) for name in base)


async def test_a_replica_starts_on_the_base_and_goes_on_to_the_adapter(
    merging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLOOP_INITIAL_VERSION", "a1")
    assert (await merging.chat()).json()["weight_version"] == "a1"
    assert merging.engine.loaded == "a1"
    assert left_over(merging.root) == []


async def test_an_adapter_that_fails_its_canaries_goes_back_to_the_one_before(merging: Any) -> None:
    assert (await merging.activate("a1")).status_code == 200
    merging.engine.logprobs["a2"] = -3.0
    refused = await merging.activate("a2")
    assert (refused.status_code, refused.json()["title"]) == (502, "swap failed")
    assert merging.engine.loaded == "a1"
    assert (await merging.chat()).json()["weight_version"] == "a1"
    assert left_over(merging.root) == []


async def test_a_base_that_was_damaged_is_not_merged(merging: Any) -> None:
    path = merging.root / "b0" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    await merging.weights()
    refused = await merging.activate("a1")
    assert refused.status_code == 500
    assert "checkpoint b0: model.safetensors differ from the manifest" in refused.json()["detail"]
    assert "pause" not in merging.engine.events


async def test_no_room_for_merged_weights_is_told_before_the_pause(
    merging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(root: Path, num_bytes: int) -> None:
        raise checkpoints.disk_full(root, num_bytes)

    monkeypatch.setattr(checkpoints, "require_space", full)
    refused = await merging.activate("a1")
    assert (refused.status_code, refused.json()["title"]) == (507, "disk full")
    assert "pause" not in merging.engine.events
    assert left_over(merging.root) == []


async def test_a_version_that_is_not_loaded_is_no_model_here(merging: Any) -> None:
    refused = await merging.chat(model="a2")
    assert refused.status_code == 404
    assert "answers by one version, b0, and not by 'a2'" in refused.json()["detail"]


def test_folders_of_dead_processes_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    left = tmp_path / f"{scratch.PREFIX}left"
    left.mkdir()
    (left / "model.safetensors").write_text("gigabytes")
    mine = scratch.Scratch(tmp_path)
    other = scratch.Scratch(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.folder.name, other.folder.name}
    mine.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_time_to_load_merged_weights_is_that_of_the_base(merging: Any) -> None:
    form = candidate.servable.read_form(merging.root / "b0")
    found = candidate.inspect(merging.root, "a1", None, form, on_base=False)
    base = checkpoints.read_manifest(merging.root / "b0")
    assert found.weights.num_bytes == sum(file["size"] for file in base["files"].values())
