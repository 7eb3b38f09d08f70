"""Chosen and rejected answers, in the forms in which sets are published.

Tests `rewardloop.datasets.formats.preference`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import (
    assistant,
    orders,
    prompts,
    ranked,
    system,
    told,
    user,
    why_left_out,
)

HH = "\n\nHuman: What is tea?\n\nAssistant: A drink.\n\nHuman: Is it hot?\n\nAssistant:"
LONG = [user("A?"), assistant("a"), user("B?")]


@pytest.mark.parametrize(
    ("row", "turns", "format"),
    [
        ({"prompt": "Q", "chosen": "good", "rejected": "bad"}, ["Q"], "trl"),
        (
            {"prompt": [user("Q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
            ["Q"],
            "trl",
        ),
        (
            {"chosen": [user("Q"), assistant("good")], "rejected": [user("Q"), assistant("bad")]},
            ["Q"],
            "trl",
        ),
        (
            {
                "prompt": "Q",
                "prompt_id": "1",
                "chosen": [user("Q"), assistant("good")],
                "rejected": [user("Q"), assistant("bad")],
                "messages": [user("Q"), assistant("good")],
                "score_chosen": 8.0,
                "score_rejected": 4.5,
            },
            ["Q"],
            "trl",
        ),
        ({"system": "", "question": "Q", "chosen": "good", "rejected": "bad"}, ["Q"], "orca_dpo"),
        (
            {"instruction": "Q", "input": "i", "chosen": "good", "rejected": "bad"},
            ["Q\n\ni"],
            "alpaca",
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            ["Q"],
            "sharegpt",
        ),
        (
            {
                "input": {"messages": [user("Q")], "tools": []},
                "preferred_output": [assistant("good")],
                "non_preferred_output": [assistant("bad")],
            },
            ["Q"],
            "openai",
        ),
        ({"chosen": f"{HH} good", "rejected": f"{HH} bad"}, None, "hh_rlhf"),
        ({"prompt": HH, "chosen": " good", "rejected": " bad"}, None, "trl"),
        (
            {
                "prompt": "A?",
                "chosen": [*LONG, assistant("good")],
                "rejected": [*LONG, assistant("bad")],
            },
            ["A?", "a", "B?"],
            "trl",
        ),
        (
            {
                "source": "x",
                "conversation": [{"input": "A?", "output": "a"}, {"input": "B?", "output": "good"}],
                "messages": LONG,
                "chosen": [*LONG, assistant("good")],
                "rejected": [*LONG, assistant("bad")],
            },
            ["A?", "a", "B?"],
            "capybara",
        ),
        (
            {
                "prompt": "A?",
                "chosen": [assistant("a"), user("B?"), assistant("good")],
                "rejected": [assistant("a"), user("B?"), assistant("bad")],
            },
            ["A?", "a", "B?"],
            "trl",
        ),
        (
            {
                "source": "s",
                "instruction": "Q",
                "chosen_response": "good",
                "rejected_response": "bad",
                "chosen_avg_rating": 4.5,
                "rejected_avg_rating": 3.0,
                "chosen_model": "m",
            },
            ["Q"],
            "trl",
        ),
        (
            {
                "prompt": "Q",
                "chosen": [user("Q"), assistant("good")],
                "chosen-rating": 5.0,
                "chosen-model": "m",
                "rejected": [user("Q"), assistant("bad")],
                "rejected-rating": 2.5,
                "rejected-model": "n",
            },
            ["Q"],
            "trl",
        ),
        ({"prompt": "Q", "response": "good", "chosen": "good", "rejected": "bad"}, ["Q"], "trl"),
        ({"system": "", "input": "Q", "chosen": "good", "rejected": "bad"}, ["Q"], "trl"),
        (
            {"prompt": "B?", "messages": LONG, "chosen": "good", "rejected": "bad"},
            ["A?", "a", "B?"],
            "trl",
        ),
    ],
)
def test_a_preference_is_two_ranks(
    tmp_path: Path, row: dict[str, Any], turns: list[str] | None, format: str
) -> None:
    found = prompts(tmp_path, row)
    (prompt,) = found.prompts
    said = [message["content"] for message in prompt.messages]
    assert said == (turns or ["What is tea?", "A drink.", "Is it hot?"])
    assert prompt.messages[-1]["role"] == "user"
    assert (prompt.reference, found.format) == ("good", format)
    assert orders(tmp_path, row) == [[("good", 0), ("bad", 1)]]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "S", "prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"system": "S", "question": "Q", "chosen": "good", "rejected": "bad"},
        {"system": "S", "chosen": [user("Q"), assistant("good")], "rejected": []},
        {"prompt": [system("S"), user("Q")], "chosen": [assistant("good")]},
        {"prompt": [system("S"), user("Q")], "chosen": [user("Q"), assistant("good")]},
        {"system": "S", "prompt": "Q", "chosen": [user("Q"), assistant("good")]},
    ],
)
def test_the_system_turn_stays(tmp_path: Path, row: dict[str, Any]) -> None:
    assert told(tmp_path, row) == [([("system", "S"), ("user", "Q")], "good")]


def test_a_rejected_answer_alone_is_no_reference(tmp_path: Path) -> None:
    found = prompts(tmp_path, {"prompt": "Q", "rejected": "bad"})
    assert found.prompts[0].reference is None
    assert found.account.left_out["disliked"].count == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Q", "chosen": "same", "rejected": " same\n"}, "equal_sides"),
        (
            {"prompt": "Q", "chosen": "a", "rejected": "b", "score_chosen": 5, "score_rejected": 5},
            "equal_scores",
        ),
        (
            {"prompt": "Q", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 4},
            "scores_contradict",
        ),
    ],
)
def test_sides_that_are_not_told_apart_are_no_pair(
    tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    found = prompts(tmp_path, row)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out[why].count == 1
    good = {"prompt": "R", "chosen": "good", "rejected": "bad"}
    assert orders(tmp_path, row, good) == [[("good", 0), ("bad", 1)]]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {
                "chosen": [user("A?"), assistant("a"), user("B?"), assistant("good")],
                "rejected": [user("A?"), assistant("x"), user("C?"), assistant("bad")],
            },
            "diverges_early",
        ),
        (
            {"chosen": [*LONG, assistant("good")], "rejected": [user("A?"), assistant("bad")]},
            "diverges_early",
        ),
        ({"chosen": "good", "rejected": "bad"}, "no_prompt"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "label": 0}, "column_not_read"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "response": "c"}, "column_not_read"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b", "winner": "b"}, "column_not_read"),
        ({"messages": [*LONG, assistant("a")], "rejected_response": "b"}, "column_not_read"),
        ({"prompt": "Q", "response": "a", "worst": "b"}, "column_not_read"),
        (
            {"prompt": "X?", "chosen": [*LONG, assistant("good")], "rejected": []},
            "columns_disagree",
        ),
        ({"prompt": "X?", "messages": LONG, "chosen": "a", "rejected": "b"}, "columns_disagree"),
        ({"prompt": "Q", "chosen": [user("Q")], "rejected": []}, "turns_out_of_order"),
        ({"prompt": [user("Q"), assistant("a")], "chosen": "b"}, "turns_out_of_order"),
        (
            {"prompt": "Q", "chosen": [user([{"type": "image"}]), assistant("a")]},
            "media",
        ),
        (
            {
                "input": {"messages": [user("Q")], "tools": [{"type": "function"}]},
                "preferred_output": [assistant("a")],
                "non_preferred_output": [assistant("b")],
            },
            "tool_turns",
        ),
    ],
)
def test_rows_that_are_left_out(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert why_left_out(tmp_path, row) == {why: 1}


def test_preferences_of_one_prompt_are_merged_through_the_order_they_imply(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "chosen": better, "rejected": worse} for better, worse in ("bc", "ab", "cd")
    ]
    assert orders(tmp_path, *rows) == [[("a", 0), ("b", 1), ("c", 2), ("d", 3)]]
    assert told(tmp_path, *rows) == [([("user", "Q")], "a")]


def test_an_order_that_nobody_told_is_not_invented(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": a, "rejected": b} for a, b in ("ab", "cd")]
    found = ranked(tmp_path, *rows)
    assert [answer.text for answer in found.prompts[0].responses] == ["a", "b"]
    assert found.left_out == {"order_not_told": 2}


def test_preferences_that_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": a, "rejected": b} for a, b in ("ab", "ba", "ca", "cd")]
    found = ranked(tmp_path, *rows)
    assert [answer.text for answer in found.prompts[0].responses] == ["c", "d"]
    assert found.left_out == {"contradictory_order": 2}
    assert told(tmp_path, *rows) == [([("user", "Q")], "c")]


def test_a_nul_in_one_answer_leaves_that_answer_out(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "good", "rejected": "b\0"}]
    found = prompts(tmp_path, *rows)
    assert found.prompts[0].reference == "good"
    assert found.account.left_out["unstorable"].count == 1


@pytest.mark.parametrize("chosen", [" ", "a\0b", "x" * 20_001])
def test_a_rejected_answer_is_no_reference_though_the_chosen_one_is_unfit(
    tmp_path: Path, chosen: str
) -> None:
    sides = [
        [{"role": "user", "content": "Q"}, {"role": "assistant", "content": text}]
        for text in (chosen, "bad")
    ]
    row = {"prompt": "Q", "chosen": sides[0], "rejected": sides[1]}
    assert told(tmp_path, row) == [([("user", "Q")], None)]
