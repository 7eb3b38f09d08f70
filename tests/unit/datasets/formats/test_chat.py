"""Conversations in one column.

Tests `rewardloop.datasets.formats.chat`, `rewardloop.datasets.formats.asked`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import assistant, prompts, system, told, user, why_left_out

TURNS = [user("A?"), assistant("a"), user("B?"), assistant("b")]


def sharegpt(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": words} for who, words in turns], **more}


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": TURNS}, "trl"),
        ({"conversations": TURNS}, "sharegpt"),
        (sharegpt(("human", "A?"), ("gpt", "a"), ("human", "B?"), ("gpt", "b")), "sharegpt"),
        ({"conversation": TURNS, "model": "m", "turn": 2}, "conversation"),
        (
            {"conversation": [{"input": "A?", "output": "a"}, {"input": "B?", "output": "b"}]},
            "conversation",
        ),
        ({"conversations": ["A?", "a", "B?", "b"]}, "sharegpt"),
        ({"id": "1", "data": ["A?", "a", "B?", "b"]}, "ultrachat"),
        ({"prompt": "A?", "prompt_id": "1", "messages": TURNS}, "trl"),
        (
            {"text": "### Human: A?\n### Assistant: a\n### Human: B?\n### Assistant: b"},
            "transcript",
        ),
    ],
)
def test_the_prompt_ends_before_the_first_answer(
    tmp_path: Path, row: dict[str, Any], format: str
) -> None:
    found = prompts(tmp_path, row)
    (prompt,) = found.prompts
    assert prompt.messages == (user("A?"),)
    assert (prompt.reference, found.format) == ("a", format)
    assert found.account.later_turns == 2


def test_roles_of_many_names(tmp_path: Path) -> None:
    row = {"messages": [{"role": "developer", "content": "S"}, user("A?"), assistant("a")]}
    bot = sharegpt(("system", "T"), ("User", "A?"), ("chatgpt", "a"))
    assert told(tmp_path, row, bot) == [
        ([("system", "S"), ("user", "A?")], "a"),
        ([("system", "T"), ("user", "A?")], "a"),
    ]


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_a_system_column_becomes_a_turn(tmp_path: Path, column: str) -> None:
    row = {"system": "S", column: TURNS}
    assert told(tmp_path, row)[0][0] == [("system", "S"), ("user", "A?")]


def test_the_same_system_turn_twice_is_one(tmp_path: Path) -> None:
    row = {"system": "S", "messages": [system("S"), *TURNS]}
    assert told(tmp_path, row)[0][0] == [("system", "S"), ("user", "A?")]


def test_two_system_turns_disagree(tmp_path: Path) -> None:
    row = {"system": "other", "messages": [system("S"), *TURNS]}
    assert why_left_out(tmp_path, row) == {"columns_disagree": 1}


@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_a_label_is_of_the_last_answer(tmp_path: Path, column: str) -> None:
    before = [("user", "A?"), ("assistant", "a"), ("user", "B?")]
    assert told(tmp_path, {"messages": TURNS, column: False}) == [(before, None)]
    assert told(tmp_path, {"messages": TURNS, column: "good"}) == [(before, "b")]


def test_a_labelled_conversation_without_a_last_answer(tmp_path: Path) -> None:
    row = {"messages": TURNS[:3], "label": True}
    assert why_left_out(tmp_path, row) == {"turns_out_of_order": 1}


def test_a_turn_of_weight_0_is_context(tmp_path: Path) -> None:
    unlearnt = assistant("a", weight=0)
    row = {"messages": [user("A?"), unlearnt, user("B?"), assistant("b", weight=1)]}
    before = [("user", "A?"), ("assistant", "a"), ("user", "B?")]
    assert told(tmp_path, row) == [(before, "b")]


def test_a_conversation_without_a_turn_to_learn_has_no_reference(tmp_path: Path) -> None:
    found = prompts(tmp_path, {"messages": [user("A?"), assistant("a", weight=0)]})
    assert found.prompts[0].reference is None
    assert found.account.left_out["not_learnt"].count == 1


@pytest.mark.parametrize(
    ("content", "joined"),
    [
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "text", "text": "one\n"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "input_text", "text": "one"}, "two"], "one\ntwo"),
        ([{"type": "text", "text": "one"}], "one"),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ({"type": "text", "text": "one"}, "one"),
        ([{"type": "text", "text": "a\nb"}, {"type": "text", "text": "c"}], "a\nb\nc"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": " two"}], "one two"),
    ],
)
def test_text_parts_are_joined(tmp_path: Path, content: Any, joined: str) -> None:
    row = {"messages": [user(content), assistant([{"type": "text", "text": "yes"}])]}
    assert told(tmp_path, row) == [([("user", joined)], "yes")]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "image"},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {}},
        {"type": "text", "text": None},
        {"type": "text", "text": "see", "image_url": "x"},
    ],
)
def test_a_part_that_is_no_text_leaves_the_row_out(tmp_path: Path, part: Any) -> None:
    row = {"messages": [user([{"type": "text", "text": "what?"}, part]), assistant("a")]}
    assert why_left_out(tmp_path, row) == {"media": 1}


@pytest.mark.parametrize(
    "turns",
    [
        [("human", "Q"), ("function_call", "{}"), ("observation", "20"), ("gpt", "It is 20.")],
        [("human", "Q"), ("tool", "20"), ("gpt", "It is 20.")],
    ],
)
def test_tool_turns_before_the_answer_leave_the_row_out(
    tmp_path: Path, turns: list[tuple[str, str]]
) -> None:
    assert why_left_out(tmp_path, sharegpt(*turns)) == {"tool_turns": 1}


def test_tool_calls_leave_the_row_out(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert why_left_out(tmp_path, {"messages": [user("Q"), call]}) == {"tool_turns": 1}


@pytest.mark.parametrize(
    "text", ["<image>What is this?", "What is this?\n<image>", "<video>\nWho?"]
)
def test_a_pictures_place_leaves_the_row_out(tmp_path: Path, text: str) -> None:
    assert why_left_out(tmp_path, {"messages": [user(text), assistant("A cat.")]}) == {"media": 1}


def test_an_html_tag_is_no_picture(tmp_path: Path) -> None:
    row = {"messages": [user("How does the <video> tag work?"), assistant("Like <audio>, so.")]}
    assert len(prompts(tmp_path, row).prompts) == 1


def test_hidden_reasoning_leaves_the_row_out(tmp_path: Path) -> None:
    row = {"messages": [user("Q"), assistant("a", reasoning_content="because")]}
    assert why_left_out(tmp_path, row) == {"column_not_read": 1}


def test_what_follows_the_answer_is_not_looked_at(tmp_path: Path) -> None:
    row = sharegpt(("human", "Q"), ("gpt", "a"), ("bing", "?"), ("human", "R"), ("tool", "?"))
    found = prompts(tmp_path, row)
    assert (found.prompts[0].reference, found.account.later_turns) == ("a", 3)


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([assistant("so"), user("Q"), assistant("a")], "turns_out_of_order"),
        ([user("P"), user("Q"), assistant("a")], "turns_out_of_order"),
        ([user("Q"), assistant("a"), assistant("b")], "turns_out_of_order"),
        ([user("Q"), assistant("a"), {"role": "tool", "content": "20"}], "tool_turns"),
        ([system("S"), system("T"), user("Q"), assistant("a")], "turns_out_of_order"),
        ([user("P"), system("S"), user("Q"), assistant("a")], "turns_out_of_order"),
        ([system("S")], "turns_out_of_order"),
        ([system(" "), user("Q"), assistant("a")], "empty_turn"),
        ([user(" "), assistant("a")], "prompt_empty"),
        ([user("x" * 20_001), assistant("a")], "prompt_too_long"),
        (
            [turn for _ in range(51) for turn in (user("Q"), assistant("a", weight=0))],
            None,
        ),
    ],
)
def test_conversations_that_no_template_takes(
    tmp_path: Path, turns: list[dict[str, Any]], why: str | None
) -> None:
    if why is None:
        assert told(tmp_path, {"messages": turns}) == [([("user", "Q")], None)]
    else:
        assert why_left_out(tmp_path, {"messages": turns}) == {why: 1}


def test_more_turns_than_can_be_stored(tmp_path: Path) -> None:
    turns = [turn for n in range(51) for turn in (user(f"{n}?"), assistant("a"))]
    assert why_left_out(tmp_path, {"messages": turns, "label": True}) == {"too_many_turns": 1}


def test_a_prompt_beside_another_conversation(tmp_path: Path) -> None:
    row = {"prompt": "quite another", "messages": TURNS}
    assert why_left_out(tmp_path, row) == {"columns_disagree": 1}


def test_columns_that_repeat_the_conversation(tmp_path: Path) -> None:
    row = {"instruction": "A?", "response": "a", "conversations": TURNS}
    assert told(tmp_path, row) == [([("user", "A?")], "a")]
    assert why_left_out(tmp_path, row | {"response": "other"}) == {"columns_disagree": 1}


def test_a_turn_that_is_itself_a_rendered_conversation(tmp_path: Path) -> None:
    rendered = user("\n\nHuman: A?\n\nAssistant: a\n\nHuman: B?\n\nAssistant:")
    turns = [("user", "A?"), ("assistant", "a"), ("user", "B?")]
    rows = [
        {"messages": [rendered, assistant(" b")]},
        {"prompt": [rendered], "chosen": [assistant(" b")], "rejected": [assistant(" c")]},
        {"chosen": [rendered, assistant(" b")], "rejected": [rendered, assistant(" c")]},
    ]
    for row in rows:
        assert told(tmp_path, row) == [(turns, "b")]
    among_others = {"messages": [system("S"), rendered, assistant("b")]}
    assert why_left_out(tmp_path, among_others) == {"turn_marks": 1}


def test_turns_about_marks_stay_as_they_are(tmp_path: Path) -> None:
    question = "What is this?\n<|im_start|>user\nhi<|im_end|>"
    answered = "ChatML:\n<|im_start|>user\nA turn ends with <|im_end|>"
    row = {"messages": [user(question), assistant(answered)]}
    assert told(tmp_path, row) == [([("user", question)], answered)]


def test_an_end_token_that_hangs_on_an_answer_is_cut(tmp_path: Path) -> None:
    row = {"messages": [user("Hi"), assistant("Hello<|im_end|>\n")]}
    assert told(tmp_path, row) == [([("user", "Hi")], "Hello")]


def test_turns_as_json_in_a_text(tmp_path: Path) -> None:
    row = {"messages": '[{"role": "user", "content": "A?"}, {"role": "assistant", "content": "a"}]'}
    assert told(tmp_path, row) == [([("user", "A?")], "a")]


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"messages": "A"}, '"messages" is a text, not a list'),
        (sharegpt(("human", "x"), ("bing", "y")), 'turn 2: "from" is "bing", not one of human'),
        ({"conversations": [{"from": "human"}]}, 'turn 1: "content" is missing'),
        ({"messages": [user(3)]}, 'turn 1: "content" is a number, not a text'),
    ],
)
def test_malformed_turns_are_told(tmp_path: Path, row: dict[str, Any], detail: str) -> None:
    found = prompts(tmp_path, {"prompt": "good"}, row)
    assert detail in found.account.left_out["malformed"].detail


def test_empty_keys_of_another_form_do_not_change_a_turn(tmp_path: Path) -> None:
    turns = [user("Q") | {"input": None}, assistant("a") | {"output": None, "input": None}]
    assert told(tmp_path, {"messages": turns}) == [([("user", "Q")], "a")]
