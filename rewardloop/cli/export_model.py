"""`export-model`: a version as a folder of its own, for whatever reads Hugging Face models."""

import shutil
from pathlib import Path

from rewardloop import checkpoints
from rewardloop.cli.terminal import Console
from rewardloop.errors import Conflict, DiskFull, EnvironmentUnfit
from rewardloop.merging import merge

console = Console()


def export_model(root: Path, version: str, folder: Path) -> None:
    """Write whole weights, config, tokenizer and template to the new `folder`, or nothing.

    The stack need not run: the files are compared with their manifest, not with Postgres.

    Raises:
        NotFound: there is no such version under `root`.
        CheckpointInvalid: its files, or its base's, are damaged.
        Conflict: `folder` is there.
        DiskFull: it has no room.
        EnvironmentUnfit: an adapter is to be merged, and torch is not installed.
    """
    if folder.exists():
        raise Conflict(f"{folder} is there already; name a folder that is not")
    checkpoints.verify(checkpoints.folder_of(root, version))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        merge(root, version, partial)
    except DiskFull as error:
        raise DiskFull(f"no room for {version} under {folder.parent}; free some space") from error
    except ImportError as error:
        raise EnvironmentUnfit(
            f"{version} is an adapter, and torch, which merges it, is not installed ({error}); "
            "run the command where the trainer runs"
        ) from error
    partial.rename(folder)
    base = checkpoints.base_of(root, version)
    merged = f", merged with its base {base}," if base else ""
    console.print(f"{version}{merged} is in {folder}")
