"""Columns beside what is read: in flat files of messages, in exports, and of moderators.

Tests `rewardloop.datasets.meaning`, `rewardloop.datasets.formats.oasst`,
`rewardloop.datasets.formats.exports`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import read_prompts, read_ranked
from rewardloop.errors import InvalidInput


def message(id: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    role = "prompter" if parent is None else "assistant"
    row = {"message_id": id, "parent_id": parent, "text": text, "role": role, "lang": "en"}
    return row | {"rank": None if parent is None else 0, "tree_state": "ready_for_export"} | more


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_columns_of_messages_are_told(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        message("a", None, "Hi?", user_id="u", emojis={"+1": 2}),
        message("b", "a", "Hello.", remark="very kind"),
    )
    account = read_prompts(path).account
    assert account.columns_used == {
        **{"message_id": 2, "parent_id": 1, "text": 2, "role": 2},
        **{"lang": 2, "rank": 1, "tree_state": 2},
    }
    assert account.columns_passed_over == {"emojis": 1, "user_id": 1}
    assert account.columns_unknown == {"remark": 1}
    assert (account.num_rows, account.formats) == (2, {"oasst": 1})


def test_an_answer_without_its_prompt_is_told(tmp_path: Path) -> None:
    path = lines(tmp_path, message("b", "gone", "Hello."), message("c", None, "Hi?"))
    account = read_prompts(path).account
    assert account.num_prompts == 1
    assert account.left_out["no_prompt"].count == 1
    assert account.left_out["no_prompt"].first_line == 1


@pytest.mark.parametrize("mark", [{"status": "discarded"}, {"images": ["a.png"]}, {"spam": True}])
def test_a_message_that_is_marked_is_left_out(tmp_path: Path, mark: dict[str, Any]) -> None:
    path = lines(tmp_path, message("a", None, "Hi?"), message("b", "a", "Hello.", **mark))
    found = read_prompts(path)
    assert found.prompts[0].reference is None
    assert sum(told.count for told in found.account.left_out.values()) == 1


def record(**fields: Any) -> dict[str, Any]:
    """As Argilla's clients write a record to JSON."""
    given = [{"values": {"better": {"value": "response-1"}}, "status": "submitted"}]
    shown = {"prompt": "A?", "response-1": "good", "response-2": "bad"}
    return {"fields": shown | fields, "responses": given, "suggestions": []}


def test_an_exports_context_is_part_of_its_prompt(tmp_path: Path) -> None:
    (found,) = read_prompts(lines(tmp_path, record(context="A passage."))).prompts
    assert found.messages[-1]["content"] == "A?\n\nA passage."
    assert found.reference == "good"


@pytest.mark.parametrize("field", [{"image": "a.png"}, {"tools": "[1]"}, {"messages": "Hi"}])
def test_an_export_whose_field_is_not_read_is_left_out(
    tmp_path: Path, field: dict[str, Any]
) -> None:
    account = read_prompts(lines(tmp_path, record(), record(**field))).account
    assert sum(told.count for told in account.left_out.values() if told.first_line == 2) == 1


ROW = {"prompt": "A", "response": "B"}


@pytest.mark.parametrize(
    "moderation",
    [{"flagged": True}, [{"flagged": False}, {"flagged": True}], {"roberta": {"flagged": True}}],
)
def test_a_flagged_row_is_left_out(tmp_path: Path, moderation: Any) -> None:
    account = read_prompts(lines(tmp_path, ROW, ROW | {"openai_moderation": moderation})).account
    assert account.left_out["flagged"].count == 1
    assert account.left_out["flagged"].first_line == 2


@pytest.mark.parametrize("moderation", [{"flagged": False}, [], None, [{"scores": [0.1]}]])
def test_a_row_that_is_not_flagged_is_read(tmp_path: Path, moderation: Any) -> None:
    found = read_prompts(lines(tmp_path, ROW | {"openai_moderation": moderation}))
    assert (len(found.prompts), found.account.left_out) == (1, {})


def test_a_question_is_not_read_without_its_choices(tmp_path: Path) -> None:
    path = lines(tmp_path, {"question": "Which?", "choices": ["8", "7"], "answer": "1"})
    with pytest.raises(InvalidInput, match="choices"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"winner_model_a": 0}, "label_not_understood"),
        ({"winner_tie": 1}, "label_not_understood"),
        ({"winner_model_a": "x"}, "label_not_understood"),
        ({"prompt": '["A?", "B?"]'}, "vote_over_turns"),
        ({"response_a": "[null]"}, "malformed"),
    ],
)
def test_a_vote_of_the_arena_that_is_no_vote_on_one_answer(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    vote = {"prompt": '["A?"]', "response_a": '["a"]', "response_b": "plain b"}
    won = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    found = read_ranked(lines(tmp_path, vote | won, vote | won | change))
    assert [[each.text for each in one.responses] for one in found.prompts] == [["a", "plain b"]]
    assert found.left_out[reason] == 1


@pytest.mark.parametrize("read", [read_prompts, read_ranked])
def test_the_account_ends_with_the_notes_on_the_file(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"prompt": "A", "chosen": "b", "rejected": "c"}\n' * 2)
    notes = read(path).account.notes
    assert notes == ("rows.json holds one JSON object a line, and was read so.",)
    assert read(path).account.as_json()["notes"] == notes
