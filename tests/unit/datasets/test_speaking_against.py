"""What speaks against an answer, or adds to its prompt, under names that no format has.

Tests `rewardloop.datasets.meaning`, `rewardloop.datasets.row`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import Account, read_prompts
from rewardloop.errors import InvalidInput

PLAIN = {"prompt": "What is snow?", "response": "Frozen water."}


def references(folder: Path, row: dict[str, Any]) -> tuple[list[str | None], Account]:
    """Of the row's prompt, beside a good row that keeps the file from being refused."""
    path = folder / "rows.jsonl"
    good = {"prompt": "Other?", "response": "Fine."}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    found = read_prompts(path)
    others = [p for p in found.prompts if p.messages[-1]["content"] != "Other?"]
    return [prompt.reference for prompt in others], found.account


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("flagged", True, "rejected_by_reviewers"),
        ("isValid", False, "rejected_by_reviewers"),
        ("human_verified", "no", "rejected_by_reviewers"),
        ("error", "timed out", "rejected_by_reviewers"),
        ("finish_reason", "length", "rejected_by_reviewers"),
        ("spam", 0.8, "rejected_by_reviewers"),
        ("isDeleted", True, "prompt_deleted"),
        ("deletedAt", "2024-05-01", "prompt_deleted"),
        ("isLiked", False, "column_not_read"),
        ("decision", "Rejected", "column_not_read"),
        ("reaction", "👎", "column_not_read"),
        ("edited_response", "Frozen rain.", "column_not_read"),
        ("ground_truth", "Ice crystals.", "column_not_read"),
        ("human_response", "Ice crystals.", "column_not_read"),
        ("response_w", "Ice crystals.", "column_not_read"),
        ("negatives", ["Fire."], "column_not_read"),
        ("systemPrompt", "Speak as a pirate.", "column_not_read"),
        ("past_messages", [{"role": "user", "content": "Hi."}], "column_not_read"),
        ("turns", [{"role": "user", "content": "Hi."}], "column_not_read"),
        ("article", "Snow falls in winter.", "column_not_read"),
        ("available_tools", [{"name": "weather"}], "tool_turns"),
        ("imagePath", "snow.png", "media"),
    ],
)
def test_a_column_that_speaks_against_the_row_leaves_it_out(
    tmp_path: Path, column: str, value: object, reason: str
) -> None:
    found, account = references(tmp_path, {**PLAIN, column: value})
    assert found == []
    assert list(account.left_out) == [reason]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("flagged", False),
        ("isValid", True),
        ("verified", "verified"),
        ("error", None),
        ("refusal", 0),
        ("finish_reason", "stop"),
        ("spam", 0.1),
        ("edited", False),
        ("has_history", False),
        ("deletedAt", ""),
        ("remark", "very kind"),
    ],
)
def test_a_column_that_says_nothing_against_the_row_leaves_it_in(
    tmp_path: Path, column: str, value: object
) -> None:
    found, account = references(tmp_path, {**PLAIN, column: value})
    assert found == ["Frozen water."]
    assert account.left_out == {}


@pytest.mark.parametrize(
    "key",
    [
        {"feedback": "bad"},
        {"thumbs": "down"},
        {"isGood": False},
        {"deleted": True},
        {"annotations": {"rating": 1}},
        {"verdict": "wrong"},
        {"context": "Winter."},
        {"finish_reason": "length"},
        {"unfinished": True},
    ],
)
def test_what_a_turn_says_of_itself_is_not_passed_by(tmp_path: Path, key: dict[str, Any]) -> None:
    turns = [{"role": "user", "content": "Snow?"}, {"role": "assistant", "content": "Ice."} | key]
    found, account = references(tmp_path, {"messages": turns})
    assert found == []
    assert list(account.left_out) == ["column_not_read"]


def test_plain_keys_of_a_turn_change_nothing(tmp_path: Path) -> None:
    beside = {"name": "Bo", "timestamp": "2024", "deleted": False, "language": "English"}
    beside |= {"finish_reason": "stop", "error": False, "refusal": None}
    turns = [
        {"role": "user", "content": "Snow?"} | beside,
        {"role": "assistant", "content": "Ice."} | beside,
    ]
    found, account = references(tmp_path, {"messages": turns})
    assert (found, account.left_out) == (["Ice."], {})


def test_an_answer_under_a_loss_mask_is_not_learnt(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Snow?"},
        {"role": "assistant", "content": "Ice.", "loss_mask": 0},
    ]
    found, account = references(tmp_path, {"messages": turns})
    assert found == [None]
    assert set(account.left_out) == {"not_learnt", "no_grade"}


@pytest.mark.parametrize("nothing", ["<noinput>", "nan", "None", "N/A", " Noinput "])
def test_a_placeholder_is_no_input(tmp_path: Path, nothing: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "Say hi.", "input": nothing, "output": "Hi."}))
    (prompt,) = read_prompts(path).prompts
    assert prompt.messages == ({"role": "user", "content": "Say hi."},)


def test_a_file_of_such_rows_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**PLAIN, "golden_answer": "Ice."}))
    with pytest.raises(InvalidInput, match="golden_answer"):
        read_prompts(path)


@pytest.mark.parametrize(
    "column", ["toxicity_rating", "prompt_rating", "difficulty_rating", "negative_reward"]
)
def test_a_rating_of_something_else_ranks_no_answers(tmp_path: Path, column: str) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**PLAIN, column: 1}, {**PLAIN, "response": "Ice.", column: 5}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InvalidInput, match=column):
        read_prompts(path)


@pytest.mark.parametrize("column", ["rating", "human_rating", "avg_response_rating", "rm_reward"])
def test_a_rating_of_the_answer_ranks_it(tmp_path: Path, column: str) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**PLAIN, column: 1}, {**PLAIN, "response": "Ice.", column: 5}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [prompt.reference for prompt in read_prompts(path).prompts] == ["Ice."]


def test_a_later_turn_without_the_earlier_ones_is_left_out(tmp_path: Path) -> None:
    found, account = references(tmp_path, {**PLAIN, "conversation_id": "a", "turn_index": 2})
    assert (found, list(account.left_out)) == ([], ["column_not_read"])
    found, _ = references(tmp_path, {**PLAIN, "turn_index": 2, "history": [["Hi?", "Hello."]]})
    assert found == ["Frozen water."]


def test_vicunas_answers_are_no_questions(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"question_id": 1, "text": "Frozen water.", "answer_id": "x", "model_id": "m"}
    path.write_text(json.dumps(row))
    with pytest.raises(InvalidInput, match="there is no prompt"):
        read_prompts(path)


def test_an_empty_label_among_filled_ones_is_no_praise(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,label\nA?,a,good\nB?,b,\nC?,c,bad\n")
    found = read_prompts(path)
    assert [prompt.reference for prompt in found.prompts] == ["a", None, None]
    assert {name: left.count for name, left in found.account.left_out.items()} == {
        "disliked": 1,
        "no_grade": 1,
    }


def test_a_label_that_no_row_fills_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,label\nA?,a,\nB?,b,\n")
    assert [prompt.reference for prompt in read_prompts(path).prompts] == ["a", "b"]


def test_a_row_without_the_label_of_others_is_read_by_itself(tmp_path: Path) -> None:
    found, account = references(tmp_path, {"prompt": "A?", "completion": "a", "label": True})
    assert (found, account.num_references) == (["a"], 2)


@pytest.mark.parametrize(
    ("said", "wanted", "is_kept"),
    [
        ("en", "en", True),
        ("EN", "en", True),
        ("en-US", "en", True),
        ("en_GB", "en", True),
        ("English", "en", True),
        ("de", "en", False),
        ("de-AT", "en", False),
        ("German", "en", False),
        ("de_CH", "de", True),
        ("german", "de", True),
        ("en", "de", False),
        ("python", "en", True),
        ("de", None, True),
    ],
)
def test_a_rows_language_by_name_code_or_country(
    tmp_path: Path, said: str, wanted: str | None, is_kept: bool
) -> None:
    for column in ("language", "lang"):
        rows = [{"prompt": "Q", "completion": "a", column: said}, {"prompt": "R"}]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = read_prompts(path, language=wanted)
        assert len(found.prompts) == 1 + is_kept, column
        if not is_kept:
            detail = found.account.left_out["prompt_other_language"].detail
            assert detail == f'its "{column}" is {said.lower()}'
