"""A version's whole weights, in a folder that transformers and any engine can load.

With an adapter these are W + (alpha / rank) B A for each matrix W of its base that it changes,
computed in float32 and written as W is. Where W is float32, as in all that the trainer and an
import publish, that is bit for bit what peft's merge gives. Needs torch, and the memory of one
matrix at a time. Verifies nothing: who loads or hands on the result does that first.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardloop import checkpoints, servable
from rewardloop.errors import CheckpointInvalid
from rewardloop.servable import weights
from rewardloop.servable.adapter import WEIGHTS, read_adapter, tensor_name

if TYPE_CHECKING:
    import torch

OWN = {checkpoints.MANIFEST, checkpoints.CANARIES}
"""Files that speak of one version; the others are a model's."""


def merge(root: Path, version: str, into: Path) -> None:
    """Write the weights of `version`, adapter and base made one, and its base's other files to
    the new folder `into`; a version of full weights is copied. Whole, or nothing is left.

    Raises:
        NotFound: there is no such version.
        CheckpointInvalid: the adapter and its base do not fit.
        DiskFull: there is no room.
        FileExistsError: `into` is there.
    """
    folder = checkpoints.folder_of(root, version)
    checkpoints.read_manifest(folder)
    base = servable.effective_folder(folder)
    checkpoints.require_space(into.parent, checkpoints.size_of(base))
    into.mkdir()
    try:
        with checkpoints.full_disk_told(into.parent):
            _copy(base, into)
            if base != folder:
                _write_into(into, merged(base, folder))
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def merge_into(model: Any, base: Path, adapter: Path) -> None:
    """Give transformers' model of `base` the weights of base and adapter, in its own dtype."""
    import torch

    with torch.no_grad():
        for name, whole in merged(base, adapter):
            model.get_parameter(name).copy_(whole)


def merged(base: Path, adapter: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Each of the base's matrices that the adapter changes, by its name, changed, in float32.

    Raises:
        CheckpointInvalid: a matrix is not finite, or of a dtype that is no plain float.
    """
    import torch
    from safetensors import safe_open

    said = read_adapter(adapter)
    wanted = set(said.layers(weights.read_layout(base)))
    with safe_open(adapter / WEIGHTS, framework="pt") as changes:
        for path in sorted(base.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in wanted.intersection(file.keys()):
                    whole = _plain(base, name, file.get_tensor(name))
                    a, b = (changes.get_tensor(tensor_name(name, side)) for side in "AB")
                    whole += (b @ a) * said.scale
                    if not torch.isfinite(whole).all():
                        raise CheckpointInvalid(
                            f"checkpoint {adapter.name}: with its adapter {name} is not finite; "
                            "train the version again, with a smaller learning rate"
                        )
                    yield name, whole


def _plain(base: Path, name: str, tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise CheckpointInvalid(
            f"checkpoint {base.name}: {name} is {tensor.dtype}, to which no adapter is added; "
            "import the model again from its files in bfloat16 or float32"
        )
    return tensor.float()


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name not in OWN:
            shutil.copyfile(path, target / path.name)


def _write_into(folder: Path, changed: Iterator[tuple[str, "torch.Tensor"]]) -> None:
    """Put the matrices in their places in the files, whose other bytes stay."""
    places = weights.places(folder)
    for name, whole in changed:
        path, start, dtype = places[name]
        with path.open("r+b") as file:
            file.seek(start)
            file.write(_bytes(whole, dtype))


def _bytes(whole: "torch.Tensor", dtype: str) -> Any:
    import torch

    as_written = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[dtype]
    return whole.to(as_written).contiguous().view(torch.uint8).numpy().tobytes()
