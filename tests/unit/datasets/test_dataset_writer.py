"""`write_preference_jsonl`: its lines, and that half a file is never seen."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import Format, read_prompts
from rewardloop.datasets.writer import write_preference_jsonl
from rewardloop.errors import InvalidInput


def row(**change: Any) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": "Grüße?"}],
        "chosen": "Hallo.",
        "rejected": "Nein.",
        "chosen_score": 4.5,
        "rejected_score": 1.0,
        "prompt_id": 3,
        "pair_id": 9,
    } | change


def test_a_line_is_trls_conversational_preference(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert write_preference_jsonl([row(), row(pair_id=10)], path) == 2
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert first == (
        '{"prompt": [{"role": "user", "content": "Grüße?"}], '
        '"chosen": [{"role": "assistant", "content": "Hallo."}], '
        '"rejected": [{"role": "assistant", "content": "Nein."}], '
        '"chosen_score": 4.5, "rejected_score": 1.0, "prompt_id": 3, "pair_id": 9}'
    )
    assert json.loads(second)["pair_id"] == 10


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_preference_jsonl([row()], path)
    found = read_prompts(path)
    assert found.format is Format.TRL
    assert found.prompts[0].messages == ({"role": "user", "content": "Grüße?"},)
    assert found.prompts[0].reference == "Hallo."
    assert found.prompts[0].source == "trl:3"


def test_no_rows_make_an_empty_file(tmp_path: Path) -> None:
    assert write_preference_jsonl([], tmp_path / "pairs.jsonl") == 0
    assert (tmp_path / "pairs.jsonl").read_bytes() == b""


def test_the_name_appears_only_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"

    def rows() -> Iterator[dict[str, Any]]:
        yield row()
        assert not path.exists()
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".pairs.jsonl.")

    write_preference_jsonl(rows(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_synced_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairs.jsonl"
    named_at_sync: list[bool] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        named_at_sync.append(path.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_preference_jsonl([row()], path)
    assert named_at_sync == [False, True]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("old")

    def rows() -> Iterator[dict[str, Any]]:
        yield row()
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_preference_jsonl(rows(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("old")
    write_preference_jsonl([row()], path)
    assert json.loads(path.read_text(encoding="utf-8"))["pair_id"] == 9


def test_a_row_that_lacks_a_key(tmp_path: Path) -> None:
    lacking = row()
    del lacking["rejected_score"]
    with pytest.raises(ValueError, match=r"^row 2 lacks 'rejected_score'$"):
        write_preference_jsonl([row(), lacking], tmp_path / "pairs.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_preference_jsonl([row(chosen_score=float("nan"))], tmp_path / "pairs.jsonl")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no is not a folder\. Make it"):
        write_preference_jsonl([row()], tmp_path / "no" / "pairs.jsonl")
