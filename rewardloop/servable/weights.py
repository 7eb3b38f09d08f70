"""The tensors of a checkpoint: their names, dtypes and shapes, and whether they are numbers.

Reads safetensors only. Knows no model: what a tensor is for, vLLM knows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop.errors import CheckpointInvalid
from rewardloop.servable.code import invalid

INDEX = "model.safetensors.index.json"
METADATA = "__metadata__"
CHUNK_BYTES = 2**24
"""So much of a tensor is looked at at once."""
_INFINITE = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F8_E5M2": ("<u1", 0x7C),
    "F8_E4M3": ("<u1", 0x7F),
    "F8_E8M0": ("<u1", 0xFF),
}
"""Of each floating dtype: its width, and the bits that are all set in NaN and infinity only."""


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str
    """As safetensors names it: F32, BF16, ..."""
    shape: tuple[int, ...]


Layout = dict[str, Tensor]


def read_layout(folder: Path) -> Layout:
    """Name, dtype and shape of each tensor of the checkpoint in `folder`.

    Raises:
        CheckpointInvalid: there are no weights, a file is no sound safetensors file, a tensor
            is there twice, or the index names other tensors than the files hold.
    """
    place: dict[str, str] = {}
    layout: Layout = {}
    for path in _files(folder):
        for name, entry in _header(path)[1].items():
            if name in place:
                raise invalid(
                    folder,
                    f"{place[name]} and {path.name} both hold the "
                    f"tensor {name}; publish the version again",
                )
            place[name] = path.name
            layout[name] = Tensor(entry["dtype"], tuple(entry["shape"]))
    _require_index(folder, place)
    return layout


def places(folder: Path) -> dict[str, tuple[Path, int, str]]:
    """Of each tensor: its file, where in it its numbers begin, and their dtype.

    Raises:
        CheckpointInvalid: as `read_layout`.
    """
    return {
        name: (path, start + entry["data_offsets"][0], entry["dtype"])
        for path in _files(folder)
        for start, entries in [_header(path)]
        for name, entry in entries.items()
    }


def require_finite(folder: Path) -> None:
    """
    Raises:
        CheckpointInvalid: naming the first tensor that holds NaN or an infinity.
    """
    for path in _files(folder):
        start, entries = _header(path)
        for name, entry in entries.items():
            if not _is_finite(path, start, entry):
                raise invalid(
                    folder,
                    f"the tensor {name} in {path.name} holds NaN or an "
                    "infinity; the training diverged or the file is damaged: train the version "
                    "again, with a smaller learning rate if its loss rose",
                )


def require_same_layout(served: Layout, started: str, new: Layout, version: str) -> None:
    """
    Raises:
        CheckpointInvalid: `version` has other tensors than `started`; up to three are named.
    """
    if told := differences(served, new):
        raise CheckpointInvalid(
            f"checkpoint {version}: its tensors are not those of {started} ({told}); "
            "publish it again from a model of the same architecture"
        )


def differences(expected: Layout, found: Layout) -> str:
    """What `found` has otherwise, in words that name up to three tensors; empty if nothing."""
    differ = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    told = [f"{name}: {_difference(expected.get(name), found.get(name))}" for name in differ[:3]]
    told += [f"{len(differ)} in all"] if len(differ) > 3 else []
    return "; ".join(told)


def _difference(served: Tensor | None, new: Tensor | None) -> str:
    if new is None:
        return "missing"
    if served is None:
        return "not known there"
    return f"{new.dtype} {list(new.shape)} instead of {served.dtype} {list(served.shape)}"


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise invalid(folder, "it holds no .safetensors file; publish it again")
    return found


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the numbers begin, and the header's entries, of which the library has checked
    offsets, sizes and dtypes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_once)
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise invalid(
            path.parent,
            f"{path.name} is no sound safetensors file ({error}); "
            "restore it from a copy or train the version again",
        ) from error
    header.pop(METADATA, None)
    return 8 + length, header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in its header twice")
    return found


def _require_index(folder: Path, place: dict[str, str]) -> None:
    """Where weights are in several files, an index says which tensor is in which."""
    path = folder / INDEX
    if not path.is_file():
        if len(set(place.values())) > 1:
            raise invalid(
                folder, f"it has its weights in several files and no {INDEX}; publish it again"
            )
        return
    try:
        named = json.loads(path.read_text(), object_pairs_hook=_once)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise invalid(folder, f"{INDEX} cannot be read; publish the version again") from error
    if named != place:
        raise invalid(
            folder,
            f"{INDEX} does not name the tensors that its files hold; publish the version again",
        )


def _is_finite(path: Path, start: int, entry: dict[str, Any]) -> bool:
    if entry["dtype"] not in _INFINITE:
        return True  # integers
    width, bits = _INFINITE[entry["dtype"]]
    return not any(((chunk & bits) == bits).any() for chunk in _chunks(path, start, entry, width))


def _chunks(path: Path, start: int, entry: dict[str, Any], width: str) -> Iterator[Any]:
    import numpy as np

    begin, end = entry["data_offsets"]
    with path.open("rb") as file:
        file.seek(start + begin)
        left = end - begin
        while left:
            piece = file.read(min(left, CHUNK_BYTES))
            left -= len(piece)
            yield np.frombuffer(piece, dtype=width)
