"""Open Assistant's flat files: what is told of messages, and moderation marks of any format."""

import json
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import read_prompts
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
