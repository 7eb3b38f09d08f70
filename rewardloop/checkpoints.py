"""Checkpoints on disk: published whole or not at all, verified before they are loaded.

A checkpoint is a folder named by its version under the checkpoint root. It holds
safetensors, the tokenizer, `canaries.json` and `manifest.json` with the sha256
and size of every other file. A folder whose name starts with a dot is not one.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardloop.errors import CheckpointInvalid, DiskFull, InvalidInput, NotFound

MANIFEST = "manifest.json"
CANARIES = "canaries.json"
_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_ALLOWED_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model"}


def folder_of(root: Path, version: str) -> Path:
    """Where `version` lies; versions are ids, never paths.

    Raises:
        InvalidInput: `version` is not an id.
    """
    if not _VERSION.fullmatch(version):
        raise InvalidInput(f"{version!r} is not a version id (letters, digits, dot, dash)")
    return root / version


def publish(
    root: Path, version: str, write: Callable[[Path], None], about: dict[str, Any]
) -> dict[str, Any]:
    """Write a checkpoint with `write(folder)` and return its manifest.

    The files are synced under a hidden name and renamed, so that the version
    either exists whole or does not exist. `about` (parent version, config hash,
    software) becomes part of the manifest. A version that exists is left as it is.

    Raises:
        DiskFull: there is no room; nothing is left behind.
        CheckpointInvalid: a file is of a kind that may not be published.
    """
    final = folder_of(root, version)
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f".{version}.partial"
    with _alone(root), _cleaned_up(partial):
        if final.exists():
            return read_manifest(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        manifest = {"version": version, **about, "files": describe(partial)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        for path in partial.iterdir():
            path.chmod(0o644)  # replicas may run as another user than the trainer
            _sync(path)
        _sync(partial)
        partial.rename(final)
        _sync(root)
    return manifest


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Those who publish under one root take turns, so that what lies under a partial name is
    a dead one's. Where the file system knows no locks, nobody waits."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _cleaned_up(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(partial.parent) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def disk_full(root: Path, needed: int | None = None) -> DiskFull:
    free = shutil.disk_usage(root).free
    needs = "" if needed is None else f" of {needed / 2**20:.0f} MiB"
    return DiskFull(
        f"no room for a checkpoint{needs} under {root} ({free / 2**20:.0f} MiB free); free some "
        "space or set REWARDLOOP_CHECKPOINT_ROOT to a larger disk, then start a new run with the "
        "iteration's base_version"
    )


def require_space(root: Path, num_bytes: int) -> None:
    """
    Raises:
        DiskFull: fewer than `num_bytes` are free under `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(root).free < num_bytes:
        raise disk_full(root, num_bytes)


def size_of(folder: Path) -> int:
    """Bytes of a checkpoint's files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size in bytes of each file but the manifest."""
    described = {}
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST:
            continue
        if path.suffix not in _ALLOWED_SUFFIXES or not path.is_file():
            raise CheckpointInvalid(f"{path.name} may not be part of a checkpoint")
        described[path.name] = {"sha256": _sha256(path), "size": path.stat().st_size}
    return described


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Raises:
        NotFound: there is no checkpoint in `folder`.
        CheckpointInvalid: its manifest cannot be read, or is another version's.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise _unreadable(folder) from error
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no checkpoint {folder.name} under {folder.parent}; is "
            "REWARDLOOP_CHECKPOINT_ROOT the folder that the trainer publishes to?"
        ) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise _unreadable(folder)
    if manifest.get("version") != folder.name.removeprefix("."):
        raise CheckpointInvalid(
            f"checkpoint {folder.name} holds the files of {manifest.get('version')}"
        )
    return manifest


def _unreadable(folder: Path) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"checkpoint {folder.name}: {MANIFEST} is damaged; restore the folder from a copy or "
        "train the version again"
    )


def verify(folder: Path) -> dict[str, Any]:
    """Check every file against the manifest, and return the manifest.

    Raises:
        CheckpointInvalid: naming the files that are missing, added or changed.
        NotFound: there is no checkpoint in `folder`.
    """
    manifest = read_manifest(folder)
    found, expected = describe(folder), manifest["files"]
    wrong = sorted(name for name in found | expected if found.get(name) != expected.get(name))
    if wrong:
        raise CheckpointInvalid(
            f"checkpoint {folder.name}: {', '.join(wrong)} differ from the manifest; "
            "restore the folder from a copy or train the version again"
        )
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
