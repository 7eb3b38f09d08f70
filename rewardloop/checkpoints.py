"""Checkpoints on disk: published whole or not at all, verified before they are loaded.

A checkpoint is a folder named by its version under the checkpoint root. It holds
safetensors, the tokenizer, `canaries.json` and `manifest.json` with the sha256
and size of every other file. A folder whose name starts with a dot is not one.
A version that was trained as an adapter holds the adapter alone, and its manifest names the
version of full weights that it stands on, with the digest of that one's manifest (`base`).
A manifest proves only itself: whoever loads a version compares it with the digest
(`digest_of`) of the manifest that was committed to Postgres. What the files mean as
a model, `servable` knows.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardloop import servable
from rewardloop.errors import CheckpointInvalid, DiskFull, InvalidInput, NotFound
from rewardloop.records import VERSION_ID

MANIFEST = "manifest.json"
CANARIES = "canaries.json"
MAX_MANIFEST_BYTES = 16 * 2**20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_ALLOWED_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model"}


def folder_of(root: Path, version: str) -> Path:
    """Where `version` lies; versions are ids, never paths.

    Raises:
        InvalidInput: `version` is not an id.
    """
    if not VERSION_ID.fullmatch(version):
        raise InvalidInput(f"{version!r} is not a version id (letters, digits, dot, dash)")
    return root / version


def publish(
    root: Path, version: str, write: Callable[[Path], None], about: dict[str, Any]
) -> dict[str, Any]:
    """Write a checkpoint with `write(folder)` and return its manifest.

    The files are synced under a hidden name and renamed, so that the version
    either exists whole or does not exist. `about` (parent version, config hash,
    software; of an adapter its `base`, see `as_base`) becomes part of the manifest. A version
    that exists is left as it is.

    Raises:
        DiskFull: there is no room; nothing is left behind.
        CheckpointInvalid: a file is of a kind that may not be published, or what was written
            is a model that cannot be served.
        SwapFailed: the model has another tokenizer, template or config than its parent.
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
        _require_base_named(partial, manifest)
        servable.require_servable(partial, _parents_form(root, about.get("parent")))
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        for path in partial.iterdir():
            path.chmod(0o644)  # replicas may run as another user than the trainer
            _sync(path)
        _sync(partial)
        partial.rename(final)
        _sync(root)
    return manifest


def _parents_form(root: Path, parent: str | None) -> servable.Form | None:
    """None where there is no parent, or its folder was deleted to make room."""
    folder = folder_of(root, parent) if parent else None
    return servable.read_form(folder) if folder and folder.is_dir() else None


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
        with full_disk_told(partial.parent):
            yield
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def full_disk_told(root: Path) -> Iterator[None]:
    """
    Raises:
        DiskFull: the block found no room under `root`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(root) from error


def disk_full(root: Path, needed: int | None = None) -> DiskFull:
    free = shutil.disk_usage(root).free
    needs = "" if needed is None else f" of {needed / 2**20:.0f} MiB"
    return DiskFull(
        f"no room for a checkpoint{needs} under {root} ({free / 2**20:.0f} MiB free); free some "
        "space or set REWARDLOOP_CHECKPOINT_ROOT to a larger disk, then retry the iteration"
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
    """sha256 and size in bytes of each file but the manifest.

    Raises:
        CheckpointInvalid: something in the folder may not be part of a checkpoint.
    """
    described = {}
    for path in sorted(folder.iterdir()):
        size = _plain_file(path).st_size
        if path.name != MANIFEST:
            described[path.name] = {"sha256": _sha256(path), "size": size}
    return described


def _plain_file(path: Path) -> os.stat_result:
    """
    Raises:
        CheckpointInvalid: it is a link, a folder, a pipe or a device, or code.
    """
    found = path.lstat()
    why = None
    if not _NAME.fullmatch(path.name) or path.suffix not in _ALLOWED_SUFFIXES:
        why = f"only {', '.join(sorted(_ALLOWED_SUFFIXES))} files are; delete it"
    elif not stat.S_ISREG(found.st_mode):
        why = "it is a link, a folder, a pipe or a device; put the file itself there"
    elif found.st_nlink > 1:
        why = "it has a second name (a hard link), by which it could be changed; copy it instead"
    if why:
        raise CheckpointInvalid(
            f"checkpoint {servable.version_of(path.parent)}: {path.name!r} may not be part of a "
            f"checkpoint: {why}"
        )
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Raises:
        NotFound: there is no checkpoint in `folder`.
        CheckpointInvalid: its manifest cannot be read, or is another version's.
    """
    path = folder / MANIFEST
    try:
        if folder.is_symlink() or _plain_file(path).st_size > MAX_MANIFEST_BYTES:
            raise _unreadable(folder)
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise _unreadable(folder) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no checkpoint {folder.name} under {folder.parent}; is "
            "REWARDLOOP_CHECKPOINT_ROOT the folder that the trainer publishes to?"
        ) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise _unreadable(folder)
    if "base" in manifest and not _names_a_base(manifest["base"]):
        raise _unreadable(folder)
    if manifest.get("version") != folder.name.removeprefix("."):
        raise CheckpointInvalid(
            f"checkpoint {folder.name} holds the files of {manifest.get('version')}"
        )
    return manifest


def _names_a_base(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"version", "manifest_sha256"}
        and all(isinstance(value, str) for value in entry.values())
        and VERSION_ID.fullmatch(entry["version"]) is not None
    )


def as_base(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest of an adapter says of its base, whose manifest is given."""
    return {"version": manifest["version"], "manifest_sha256": digest_of(manifest)}


def base_of(root: Path, version: str) -> str | None:
    """The version of full weights that an adapter stands on; None for full weights.

    Raises:
        NotFound: there is no such checkpoint.
        CheckpointInvalid: its manifest cannot be read.
    """
    base: dict[str, str] = read_manifest(folder_of(root, version)).get("base", {})
    return base.get("version")


def _unreadable(folder: Path) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"checkpoint {folder.name}: {MANIFEST} is damaged, or the folder is a link; restore the "
        "folder from a copy or train the version again"
    )


def digest_of(manifest: dict[str, Any]) -> str | None:
    """sha256 of what a manifest says, however it is written; Postgres keeps no layout.

    None for a row that was committed without a manifest: there is nothing to compare with.
    """
    if "files" not in manifest:
        return None
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path, committed: str | None = None, *, with_base: bool = True) -> dict[str, Any]:
    """Check every file against the manifest, and return the manifest. Of an adapter, the base is
    checked too, and that it is the one that the manifest names.

    `committed` is the digest of the manifest in Postgres. Without it a manifest that was
    rewritten together with its files passes. Whoever verifies the files of the base by
    themselves leaves them out: without `with_base` its manifest alone is compared.

    Raises:
        CheckpointInvalid: naming the files that are missing, added or changed, or saying that
            the manifest is not the one that was committed.
        NotFound: there is no checkpoint in `folder`.
    """
    manifest = _verified(folder, committed)
    _require_base_named(folder, manifest)
    if "base" in manifest:
        base = servable.effective_folder(folder)
        found = _verified(base) if with_base else read_manifest(base)
        if digest_of(found) != manifest["base"]["manifest_sha256"]:
            raise CheckpointInvalid(
                f"checkpoint {folder.name}: {MANIFEST} of its base {base.name} is not the one "
                f"that it was trained on; restore {base.name} from a copy"
            )
    return manifest


def _require_base_named(folder: Path, manifest: dict[str, Any]) -> None:
    """
    Raises:
        CheckpointInvalid: the manifest names another base than the adapter's own config, or one
            of the two names none.
    """
    base = manifest.get("base")
    named = folder_of(folder.parent, base["version"]) if base else folder
    if servable.effective_folder(folder) != named:
        raise CheckpointInvalid(
            f"checkpoint {servable.version_of(folder)}: {MANIFEST} and adapter_config.json do not "
            "name the same base; publish it again"
        )


def _verified(folder: Path, committed: str | None = None) -> dict[str, Any]:
    """The manifest, which the folder's own files agree with."""
    try:
        manifest = read_manifest(folder)
        require_committed(manifest, committed)
        found, expected = describe(folder), manifest["files"]
    except OSError as error:
        raise CheckpointInvalid(
            f"checkpoint {folder.name} cannot be read ({error}); restore the folder from a copy"
        ) from error
    wrong = sorted(name for name in found | expected if found.get(name) != expected.get(name))
    if wrong:
        raise CheckpointInvalid(
            f"checkpoint {folder.name}: {', '.join(wrong)} differ from the manifest; "
            "restore the folder from a copy or train the version again"
        )
    return manifest


def require_committed(manifest: dict[str, Any], committed: str | None) -> None:
    """
    Raises:
        CheckpointInvalid: `committed` is the digest of another manifest.
    """
    if committed is not None and digest_of(manifest) != committed:
        raise CheckpointInvalid(
            f"checkpoint {manifest['version']}: {MANIFEST} is not the one that was committed to "
            "Postgres, so the folder was rewritten since; restore it from a copy or train the "
            "version again"
        )


def state_of(folder: Path) -> str:
    """A digest of what the file system says of each file, which every write changes. Of an
    adapter, its base's files are among them.

    Equal before and after: what was verified before is what was read meanwhile.
    """
    folders = {folder, servable.effective_folder(folder)}
    files = sorted((path.name, path.lstat()) for one in folders for path in one.iterdir())
    said = [(name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in files]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def require_state(folder: Path, state: str) -> None:
    """
    Raises:
        CheckpointInvalid: something wrote to the folder after it was verified.
    """
    if state_of(folder) != state:
        raise CheckpointInvalid(
            f"checkpoint {folder.name} was changed while it was loaded; find what writes to it, "
            "restore the folder from a copy and swap again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
