"""A version as a folder of its own. What merging does: tests/e2e/test_adapters.py."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewardloop.cli import main
from rewardloop.cli.export_model import export_model
from rewardloop.errors import CheckpointInvalid, Conflict, DiskFull, EnvironmentUnfit, NotFound
from tests.security import small_checkpoint as small


@pytest.fixture
def root(tmp_path: Path) -> Path:
    small.publish(tmp_path / "home" / "checkpoints", "m0", seed=0)
    return tmp_path / "home" / "checkpoints"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"home"}


def test_a_version_is_written_with_all_that_a_model_needs(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "exported"
    arguments = ["export-model", "m0", str(target), "--home", str(tmp_path / "home")]
    result = CliRunner().invoke(main.app, arguments)
    assert result.exit_code == 0, result.output
    assert "m0 is in" in result.output
    wanted = contents(root / "m0")
    del wanted["manifest.json"], wanted["canaries.json"]
    assert contents(target) == wanted
    assert left(tmp_path / "new") == {"exported"}


def test_a_folder_that_is_there_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(Conflict, match="mine is there already"):
        export_model(root, "m0", tmp_path / "mine")
    assert not any((tmp_path / "mine").iterdir())


def test_a_damaged_or_unknown_version_is_not_exported(root: Path, tmp_path: Path) -> None:
    (root / "m0" / "config.json").write_text("{}")
    with pytest.raises(CheckpointInvalid, match=r"config.json differ"):
        export_model(root, "m0", tmp_path / "x")
    with pytest.raises(NotFound, match="m9"):
        export_model(root, "m9", tmp_path / "x")
    assert left(tmp_path) == set()


def test_what_a_killed_export_left_is_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "half").touch()
    export_model(root, "m0", tmp_path / "x")
    assert left(tmp_path) == {"x"}
    assert not (tmp_path / "x" / "half").exists()


def test_a_full_disk_is_told_and_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DiskFull, match="no room for m0 under"):
        export_model(root, "m0", tmp_path / "x")
    assert left(tmp_path) == set()


def test_without_torch_it_says_where_to_run_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: Any) -> None:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr("rewardloop.cli.export_model.merge", without)
    with pytest.raises(EnvironmentUnfit, match=r"torch.*where the trainer runs"):
        export_model(root, "m0", tmp_path / "x")
