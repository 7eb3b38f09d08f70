"""Tensors are read by their headers, and every number of them is looked at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rewardloop.errors import CheckpointInvalid
from rewardloop.servable import weights
from rewardloop.servable.weights import (
    Tensor,
    read_layout,
    require_finite,
    require_same_layout,
)

A, B = np.ones((2, 3), dtype=np.float32), np.ones(4, dtype=np.float16)


def in_two_files(folder: Path, weight_map: Any) -> None:
    save_file({"a": A}, folder / "model-1.safetensors")
    save_file({"b": B}, folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def raw(folder: Path, dtype: str, numbers: bytes, width: int) -> None:
    """A file whose one tensor has a dtype that numpy does not know."""
    shape, end = [len(numbers) // width], len(numbers)
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    header += b" " * (-len(header) % 8)
    whole = len(header).to_bytes(8, "little") + header + numbers
    (folder / "model.safetensors").write_bytes(whole)


def test_names_dtypes_and_shapes_over_all_files(tmp_path: Path) -> None:
    in_two_files(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    assert read_layout(tmp_path) == {"a": Tensor("F32", (2, 3)), "b": Tensor("F16", (4,))}
    require_finite(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "model-1.safetensors"},
        {"a": "model-1.safetensors", "b": "model-1.safetensors"},
        {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"},
        None,
        [],
    ],
)
def test_an_index_names_what_the_files_hold(tmp_path: Path, weight_map: Any) -> None:
    in_two_files(tmp_path, weight_map)
    with pytest.raises(CheckpointInvalid, match=r"index\.json does not name the tensors"):
        read_layout(tmp_path)


def test_several_files_need_an_index(tmp_path: Path) -> None:
    in_two_files(tmp_path, {})
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointInvalid, match="in several files and no model"):
        read_layout(tmp_path)


def test_one_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("m.safetensors", "n.safetensors"):
        save_file({"a": A}, tmp_path / name)
    with pytest.raises(CheckpointInvalid, match=r"m\.safetensors and n\.safetensors both hold"):
        read_layout(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"holds no \.safetensors file"):
        read_layout(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_number_that_is_none_is_named(tmp_path: Path, dtype: Any, value: float) -> None:
    spoilt = np.ones((3, 5), dtype=dtype)
    spoilt[2, 4] = value
    save_file({"good": A, "spoilt": spoilt}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"tensor spoilt in model\.safetensors holds NaN"):
        require_finite(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "width", "finite", "not_finite"),
    [
        ("BF16", 2, [0x3F80, 0x7F7F, 0x0001, 0x8000], [0x7F80, 0xFF80, 0x7FC0]),
        ("F8_E4M3", 1, [0x00, 0x7E, 0xFE], [0x7F, 0xFF]),
        ("F8_E5M2", 1, [0x7B, 0xFB], [0x7C, 0xFD]),
        ("F8_E8M0", 1, [0x00, 0xFE], [0xFF]),
        ("I16", 2, [0x7F80, 0xFFFF], []),
        ("U8", 1, [0xFF], []),
    ],
)
def test_dtypes_are_read_by_their_bits(
    tmp_path: Path, dtype: str, width: int, finite: list[int], not_finite: list[int]
) -> None:
    numbers = b"".join(number.to_bytes(width, "little") for number in finite)
    raw(tmp_path, dtype, numbers, width)
    require_finite(tmp_path)
    for number in not_finite:
        raw(tmp_path, dtype, numbers + number.to_bytes(width, "little"), width)
        with pytest.raises(CheckpointInvalid, match="tensor x"):
            require_finite(tmp_path)


def test_the_largest_and_smallest_numbers_are_finite(tmp_path: Path) -> None:
    found = np.finfo(np.float32)
    edge = np.array([found.max, found.min, found.tiny / 2, 0.0, -0.0], dtype=np.float32)
    save_file({"a": edge}, tmp_path / "model.safetensors")
    require_finite(tmp_path)


def test_the_last_piece_of_a_large_tensor_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "CHUNK_BYTES", 8)
    spoilt = np.ones(7, dtype=np.float32)
    spoilt[6] = np.nan
    save_file({"a": spoilt}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match="tensor a"):
        require_finite(tmp_path)


def test_an_empty_tensor_and_a_number_alone_are_fine(tmp_path: Path) -> None:
    nothing, alone = np.ones((0, 3), dtype=np.float32), np.array(1.0, dtype=np.float32)
    save_file({"nothing": nothing, "alone": alone}, tmp_path / "model.safetensors")
    require_finite(tmp_path)
    assert read_layout(tmp_path)["alone"] == Tensor("F32", ())


def test_three_differences_are_named_and_the_rest_counted() -> None:
    served = {name: Tensor("F32", (2,)) for name in "abcde"}
    new = {"b": Tensor("BF16", (2, 1)), "e": Tensor("F32", (2,)), "z": Tensor("F32", ())}
    with pytest.raises(CheckpointInvalid) as caught:
        require_same_layout(served, "m0", new, "m1")
    assert (
        "checkpoint m1: its tensors are not those of m0 (a: missing; b: BF16 [2, 1] instead of "
        "F32 [2]; c: missing; 5 in all)" in caught.value.message
    )
    with pytest.raises(CheckpointInvalid, match=r"\(z: not known there\)"):
        require_same_layout({}, "m0", {"z": Tensor("F32", ())}, "m1")
    require_same_layout(served, "m0", dict(reversed(served.items())), "m1")
