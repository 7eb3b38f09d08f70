"""Log-probabilities of a version's answers, kept beside the checkpoints."""

import errno
from pathlib import Path
from typing import Any

import pytest

from services.trainer.kept_logps import KeptLogps, folder_of, key_of

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def test_what_was_kept_is_read_from_all_files(tmp_path: Path) -> None:
    kept = KeptLogps(tmp_path / ".v1.reference")
    assert kept.read() == {}
    kept.add({A: -1.5, B: -0.1})
    kept.add({C: -300.25})
    assert KeptLogps(kept.folder).read() == {A: -1.5, B: -0.1, C: -300.25}
    assert len(list(kept.folder.iterdir())) == 2


def test_a_file_that_has_changed_is_left_out_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptLogps(tmp_path)
    kept.add({A: -1.5})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    kept.add({B: -2.5})
    assert kept.read() == {B: -2.5}
    assert "computed again" in caplog.text
    assert not path.exists()


def test_a_full_disk_costs_only_that_they_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    KeptLogps(tmp_path).add({A: -1.5})
    assert "could not be kept" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_another_fault_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(PermissionError):
        KeptLogps(tmp_path).add({A: -1.5})


def test_a_key_holds_everything_that_the_number_depends_on() -> None:
    key = key_of(b"v1", [1, 2], [3])
    others = [
        key_of(b"v2", [1, 2], [3]),
        key_of(b"v1", [1], [2, 3]),
        key_of(b"v1", [1, 2], [3, 4]),
        key_of(b"v1", [1, 2, 3], []),
    ]
    assert key == key_of(b"v1", (1, 2), (3,))
    assert len({key, *others}) == 5


def test_the_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert folder_of(tmp_path, "base") == tmp_path / ".base.reference"
