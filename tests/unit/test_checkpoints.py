"""Checkpoints: whole or absent, verified, and named by ids."""

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid, DiskFull, InvalidInput, NotFound

ABOUT = {"parent": "m0", "config": "abc"}


def write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(root: Path, version: str = "m1") -> Path:
    checkpoints.publish(root, version, write, ABOUT)
    return root / version


def test_a_manifest_describes_each_file(tmp_path: Path) -> None:
    manifest = checkpoints.publish(tmp_path / "new" / "root", "m1", write, ABOUT)
    assert manifest == {
        "version": "m1",
        "parent": "m0",
        "config": "abc",
        "files": {
            "model.safetensors": {"sha256": hashlib.sha256(b"weights").hexdigest(), "size": 7},
            "config.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "size": 2},
        },
    }
    folder = tmp_path / "new" / "root" / "m1"
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert checkpoints.read_manifest(folder) == checkpoints.verify(folder) == manifest


def test_the_version_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    seen: list[tuple[bool, str]] = []

    def watched(folder: Path) -> None:
        seen.append(((tmp_path / "m1").exists(), folder.name))
        write(folder)

    checkpoints.publish(tmp_path, "m1", watched, {})
    ((existed, name),) = seen
    assert not existed
    assert name.startswith(".")
    assert names(tmp_path) == ["m1"]


def test_files_are_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    rename = Path.rename

    def watched_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(checkpoints, "_sync", lambda path: steps.append(path.name))
    monkeypatch.setattr(Path, "rename", watched_rename)
    publish(tmp_path)
    files = {"model.safetensors", "config.json", "manifest.json"}
    assert set(steps[:3]) == files
    assert steps[3:] == [".m1.partial", "rename", tmp_path.name]


def test_replicas_of_another_user_may_read_the_files(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = publish(tmp_path)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_publishing_twice_returns_the_first_manifest(tmp_path: Path) -> None:
    first = checkpoints.publish(tmp_path, "m1", write, ABOUT)

    def other(folder: Path) -> None:
        raise AssertionError("a version that exists must not be written again")

    assert checkpoints.publish(tmp_path, "m1", other, {"parent": "m7"}) == first


def test_what_a_crash_left_behind_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".m1.partial"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    folder = publish(tmp_path)
    assert names(folder) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    assert names(tmp_path) == ["m1"]


def test_two_who_publish_one_version_do_not_disturb_each_other(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []

    def late(folder: Path) -> None:
        raise AssertionError("the first one is at it")

    def publish_too() -> None:
        found.append(checkpoints.publish(tmp_path, "m1", late, {}))

    other = threading.Thread(target=publish_too)

    def slow(folder: Path) -> None:
        other.start()
        other.join(0.1)  # it waits
        write(folder)

    first = checkpoints.publish(tmp_path, "m1", slow, ABOUT)
    other.join()
    assert found == [first] == [checkpoints.verify(tmp_path / "m1")]
    assert names(tmp_path) == ["m1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(tmp_path: Path, number: int) -> None:
    def full(folder: Path) -> None:
        write(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull, match="REWARDLOOP_CHECKPOINT_ROOT"):
        checkpoints.publish(tmp_path, "m1", full, {})
    assert names(tmp_path) == []


def test_another_error_of_the_writer_comes_out_as_it_is(tmp_path: Path) -> None:
    def denied(folder: Path) -> None:
        write(folder)
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        checkpoints.publish(tmp_path, "m1", denied, {})
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["model.bin", "model.py", "optimizer.pt", "noextension", ".json"])
def test_only_data_files_are_published(tmp_path: Path, name: str) -> None:
    def unsafe(folder: Path) -> None:
        write(folder)
        (folder / name).write_bytes(b"x")

    with pytest.raises(CheckpointInvalid, match=name.replace(".", r"\.")):
        checkpoints.publish(tmp_path, "m1", unsafe, {})
    assert names(tmp_path) == []


def test_a_folder_within_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"more\.json"):
        checkpoints.publish(tmp_path, "m1", lambda folder: (folder / "more.json").mkdir(), {})


@pytest.mark.parametrize(
    "version",
    ["../x", "..", ".", ".hidden", "", "a/b", "/etc", "a\\b", "a\n", "A", "ü", "-x", "x" * 101],
)
def test_a_version_is_an_id_and_never_a_path(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidInput, match="not a version id"):
        checkpoints.folder_of(tmp_path, version)
    with pytest.raises(InvalidInput):
        checkpoints.publish(tmp_path / "root", version, write, {})
    assert names(tmp_path) == []


@pytest.mark.parametrize("version", ["m1", "smollm2-135m-instruct", "0.1_x", "x" * 100])
def test_an_id_names_a_folder_of_the_root(tmp_path: Path, version: str) -> None:
    assert checkpoints.folder_of(tmp_path, version) == tmp_path / version


def changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"Weights")


def missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def added(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes(b"x")


def executable(folder: Path) -> None:
    (folder / "modeling.py").write_text("import os")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (changed, "model.safetensors"),
        (missing, "model.safetensors"),
        (added, "more.safetensors"),
        (executable, "modeling.py"),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    folder = publish(tmp_path)
    damage(folder)
    with pytest.raises(CheckpointInvalid) as caught:
        checkpoints.verify(folder)
    assert named in caught.value.message
    assert "config.json" not in caught.value.message


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    changed(folder)
    added(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointInvalid, match=r"config.*model\.safetensors.*more\.saf"):
        checkpoints.verify(folder)


@pytest.mark.parametrize("content", ["", '{"version": "m1"', "{}", "[]"])
def test_a_broken_manifest_is_an_invalid_checkpoint(tmp_path: Path, content: str) -> None:
    folder = publish(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointInvalid, match=r"m1"):
        checkpoints.verify(folder)


def test_a_missing_checkpoint_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no checkpoint m9") as caught:
        checkpoints.verify(tmp_path / "m9")
    assert str(tmp_path) in caught.value.message


def test_space_is_asked_for_before_training(tmp_path: Path) -> None:
    checkpoints.require_space(tmp_path / "root", 1)
    assert (tmp_path / "root").is_dir()
    with pytest.raises(DiskFull, match=r"of 1099511627776 MiB under .*root .*\d+ MiB free"):
        checkpoints.require_space(tmp_path / "root", 2**60)


def test_size(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    assert checkpoints.size_of(folder) == 7 + 2 + (folder / "manifest.json").stat().st_size


def test_a_digest_says_what_a_manifest_says_however_it_is_written(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    manifest = checkpoints.read_manifest(folder)
    from_postgres = json.loads(json.dumps(dict(reversed(manifest.items())), indent=7))
    digest = checkpoints.digest_of(manifest)
    assert checkpoints.digest_of(from_postgres) == digest
    assert checkpoints.digest_of({**manifest, "parent": "m9"}) != digest
    # By hand: sha256 of {"files":{},"version":"é"} with é as \u00e9.
    by_hand = hashlib.sha256(b'{"files":{},"version":"\\u00e9"}').hexdigest()
    assert checkpoints.digest_of({"version": "é", "files": {}}) == by_hand


def test_a_row_without_a_manifest_has_no_digest() -> None:
    assert checkpoints.digest_of({}) is None


def test_a_rewritten_manifest_agrees_with_itself_and_not_with_postgres(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    committed = checkpoints.digest_of(checkpoints.verify(folder))
    assert checkpoints.verify(folder, committed)["version"] == "m1"
    changed(folder)
    manifest = {**checkpoints.read_manifest(folder), "files": checkpoints.describe(folder)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    checkpoints.verify(folder)
    with pytest.raises(CheckpointInvalid, match=r"m1: manifest\.json is not the one that was comm"):
        checkpoints.verify(folder, committed)


def test_a_manifest_of_gigabytes_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(tmp_path)
    monkeypatch.setattr(checkpoints, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(CheckpointInvalid, match=r"manifest\.json is damaged"):
        checkpoints.verify(folder)


def test_a_folder_that_cannot_be_read_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(tmp_path)

    def broken(_: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoints, "_sha256", broken)
    with pytest.raises(CheckpointInvalid, match=r"m1 cannot be read .*Input/output error"):
        checkpoints.verify(folder)


def write_again(folder: Path) -> None:
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes())


def replaced(folder: Path) -> None:
    (folder / "new").write_bytes(b"{}")
    (folder / "new").rename(folder / "config.json")


def back_dated(folder: Path) -> None:
    times = (folder / "config.json").stat()
    (folder / "config.json").write_text("[]")
    os.utime(folder / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("write", [write_again, replaced, back_dated, added, missing])
def test_every_write_changes_the_state_of_a_folder(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    folder = publish(tmp_path)
    state = checkpoints.state_of(folder)
    checkpoints.verify(folder)  # reading changes nothing
    checkpoints.require_state(folder, state)
    time.sleep(0.02)  # file systems count time in ticks
    write(folder)
    with pytest.raises(CheckpointInvalid, match="was changed while it was loaded"):
        checkpoints.require_state(folder, state)
