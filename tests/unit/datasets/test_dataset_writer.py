"""What is written for TRL and for AlpacaEval, and that half a file is never seen."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import Format, read_prompts
from rewardloop.datasets.writer import write_alpaca_eval, write_preference_jsonl, write_text
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


@pytest.mark.parametrize("name", ["folder", "."])
def test_a_folder_is_no_file_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"is a folder\. Name a file in it"):
        write_text("x", Path(name))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)  # no room for the hidden name
    with pytest.raises(InvalidInput, match="xx cannot be written: File name too long"):
        write_preference_jsonl([row()], path)
    assert list(tmp_path.iterdir()) == []


def output(**change: Any) -> dict[str, Any]:
    return {
        "dataset": "evaluation",
        "instruction": "Grüße?",
        "output": "Hallo.\nWie geht's?",
        "generator": "m1",
    } | change


def test_answers_are_one_array_of_alpaca_evals_model_outputs(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    assert write_alpaca_eval([output(), output(output="", prompt_id=3)], path) == 2
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == [output(), output(output="")]
    assert "Grüße" in text


def test_no_answers_are_an_empty_array(tmp_path: Path) -> None:
    assert write_alpaca_eval([], tmp_path / "answers.json") == 0
    assert json.loads((tmp_path / "answers.json").read_text()) == []


def test_the_answers_appear_only_when_all_are_written(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text("old")

    def rows() -> Iterator[dict[str, Any]]:
        yield output()
        assert path.read_text() == "old"
        raise RuntimeError("the API went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_alpaca_eval(rows(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_answer_that_lacks_a_key(tmp_path: Path) -> None:
    lacking = output()
    del lacking["generator"]
    with pytest.raises(ValueError, match=r"^row 2 lacks 'generator'$"):
        write_alpaca_eval([output(), lacking], tmp_path / "answers.json")
    assert list(tmp_path.iterdir()) == []


def test_answers_want_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no is not a folder\. Make it"):
        write_alpaca_eval([output()], tmp_path / "no" / "answers.json")


def test_a_text_is_written_whole_and_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("old")
    write_text("# Grüße\r\n", path)
    assert path.read_bytes() == "# Grüße\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidInput, match="is not a folder"):
        write_text("x", tmp_path / "no" / "report.md")


def test_written_answers_can_be_imported_as_prompts(tmp_path: Path) -> None:
    """AlpacaEval's own prompts come in this form, so they can be answered in turn."""
    path = tmp_path / "answers.json"
    write_alpaca_eval([output()], path)
    found = read_prompts(path)
    assert found.format is Format.ALPACA
    assert found.prompts[0].messages == ({"role": "user", "content": "Grüße?"},)
