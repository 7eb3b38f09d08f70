"""Ways in which the weights of a checkpoint can be damaged: its tensors and its header."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


Edit = Callable[[Path, Random], None]


def flip_a_weight(folder: Path, chance: Random) -> None:
    """The lowest bits of one number: still finite, and hardly another model."""
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    place = 8 + int.from_bytes(content[:8], "little") + 4 * chance.randrange(16)
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def edit_tensors(edit: Callable[[dict[str, Any], str, Random], None]) -> Edit:
    def apply(folder: Path, chance: Random) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors, chance.choice(sorted(tensors)), chance)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return apply


def not_finite(tensors: dict[str, Any], name: str, chance: Random) -> None:
    flat = tensors[name].reshape(-1)
    flat[chance.randrange(flat.size)] = chance.choice([np.nan, np.inf, -np.inf])


def wrong_shape(tensors: dict[str, Any], name: str, chance: Random) -> None:
    shape = tensors[name].shape
    others = [(1, *shape), (*shape, 1), (shape[0] - 1, *shape[1:]), (int(np.prod(shape)),) * 2]
    tensors[name] = np.ones(chance.choice(others), dtype=np.float32)


def wrong_dtype(tensors: dict[str, Any], name: str, chance: Random) -> None:
    tensors[name] = tensors[name].astype(chance.choice([np.float16, np.float64, np.int32]))


def lost_tensor(tensors: dict[str, Any], name: str, _: Random) -> None:
    del tensors[name]


def extra_tensor(tensors: dict[str, Any], name: str, chance: Random) -> None:
    tensors[chance.choice(["lm_head.weight", "score.weight", name + "_"])] = tensors[name].copy()


def renamed_tensor(tensors: dict[str, Any], name: str, _: Random) -> None:
    tensors[name.upper()] = tensors.pop(name)


def edit_header(edit: Callable[[dict[str, Any], Random], Any]) -> Edit:
    """Write another header before the same numbers."""

    def apply(folder: Path, chance: Random) -> None:
        content = (folder / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = edit(json.loads(content[8:end]), chance)
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return apply


def _tensor(header: dict[str, Any], chance: Random) -> dict[str, Any]:
    name = chance.choice(sorted(name for name in header if name != "__metadata__"))
    found: dict[str, Any] = header[name]
    return found


def moved_offsets(header: dict[str, Any], chance: Random) -> dict[str, Any]:
    entry = _tensor(header, chance)
    begin, end = entry["data_offsets"]
    moved = [[begin + 4, end + 4], [begin, end - 4], [0, end - begin], [end, begin], [-4, end - 4]]
    entry["data_offsets"] = chance.choice([pair for pair in moved if pair != [begin, end]])
    return header


def odd_entry(header: dict[str, Any], chance: Random) -> dict[str, Any]:
    entry = _tensor(header, chance)
    key, value = chance.choice([("dtype", "F33"), ("shape", [-4]), ("shape", "4"), ("shape", None)])
    entry[key] = value
    return header


def no_header(header: dict[str, Any], chance: Random) -> Any:
    return chance.choice([b"[]", b"{", b"null", b"\xff\xfe", b"{" * 5000, b"[" * 50_000])


def twice_named(header: dict[str, Any], _: Random) -> bytes:
    """The same name before and behind: which of the two counts is up to the reader."""
    name = "model.norm.weight"
    first = json.dumps({name: {**header[name], "dtype": "F16"}})[1:-1]
    return f"{{{first}, {json.dumps(header)[1:]}".encode()


def long_header(folder: Path, chance: Random) -> None:
    content = (folder / WEIGHTS).read_bytes()
    length = chance.choice([len(content), 2**31, 2**63, 2**64 - 1, 0])
    (folder / WEIGHTS).write_bytes(length.to_bytes(8, "little") + content[8:])


def second_weights(folder: Path, chance: Random) -> None:
    """vLLM reads every safetensors file of a folder."""
    name = chance.choice(["consolidated.safetensors", "adapter_model.safetensors", "a.safetensors"])
    shutil.copy(folder / WEIGHTS, folder / name)


def wrong_index(folder: Path, chance: Random) -> None:
    names = sorted(load_file(folder / WEIGHTS))
    index = dict.fromkeys(names[1:], WEIGHTS) | {"lost.weight": "lost.safetensors"}
    text = chance.choice([json.dumps({"weight_map": index}), "{}", "[]", "{"])
    (folder / "model.safetensors.index.json").write_text(text)
