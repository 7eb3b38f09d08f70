"""A rubric's file is read beside the config file and sent as text."""

from pathlib import Path

import pytest

from rewardloop.cli.remote import read_config
from rewardloop.config import RubricTemplate, parse_run_config
from rewardloop.errors import InvalidInput

TEXT = "Grade {response} to {request}.\nScore: <n>"


def config_file(folder: Path, path: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(f"judging: {{rubric: {{file: {path}}}, mode: free}}\nname: own\n")
    return file


@pytest.mark.parametrize("path", ["rubrics/own.txt", "./rubrics/own.txt"])
def test_a_relative_path_is_taken_from_the_config_files_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "rubrics").mkdir()
    (tmp_path / "rubrics" / "own.txt").write_text(f"\ufeff{TEXT}\n")
    data = read_config(config_file(tmp_path, path))
    assert data == {"judging": {"rubric": {"template": TEXT}, "mode": "free"}, "name": "own"}
    assert parse_run_config(data).judging.rubric == RubricTemplate(template=TEXT)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"own\.txt cannot be read: No such file"):
        read_config(config_file(tmp_path, "own.txt"))
    (tmp_path / "own.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"own\.txt is no UTF-8 text"):
        read_config(config_file(tmp_path, "own.txt"))
