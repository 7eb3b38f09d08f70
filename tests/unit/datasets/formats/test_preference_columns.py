"""Chosen and rejected answers beside other columns: what repeats, what contradicts, what is less.

Tests `rewardloop.datasets.formats.preference`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import (
    assistant,
    orders,
    prompts,
    system,
    told,
    told_why,
    user,
    why_left_out,
)

LONG = [user("A?"), assistant("a"), user("B?")]
BOTH = {"chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("row", "why", "detail"),
    [
        (
            {"prompt": "Q", "chosen": ["good", "fine"], "rejected": "bad"},
            "column_not_read",
            '"chosen" holds several answers',
        ),
        (
            {"prompt": "Q", "chosen": ["good", 1], "rejected": "bad"},
            "malformed",
            '"chosen" is an array, not a text',
        ),
        (
            {"prompt": "Q", "chosen": "good", "rejected": 1},
            "malformed",
            '"rejected" is a number, not a text',
        ),
    ],
)
def test_a_side_of_several_texts(
    tmp_path: Path, row: dict[str, Any], why: str, detail: str
) -> None:
    assert why_left_out(tmp_path, row) == {why: 1}
    assert told_why(tmp_path, row) == detail


def test_several_rejected_answers_are_equally_bad(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": ["good"], "rejected": ["bad", "poor", "worst"]}
    assert orders(tmp_path, row) == [[("good", 0), ("bad", 1), ("poor", 1), ("worst", 1)]]
    del row["chosen"]
    found = prompts(tmp_path, row)
    assert found.account.left_out["disliked"].count == 3


@pytest.mark.parametrize("extra", ["response", "completion", "output"])
def test_a_repeated_answer_says_nothing_and_another_one_is_not_read(
    tmp_path: Path, extra: str
) -> None:
    assert told(tmp_path, {"prompt": "Q", **BOTH, extra: " good\n"}) == [([("user", "Q")], "good")]
    for value in ("bad", "good!"):
        row = {"prompt": "Q", **BOTH, extra: value}
        assert why_left_out(tmp_path, row) == {"column_not_read": 1}


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"margin": 0.5}, {}),
        ({"margin": 0}, {"equal_scores": 1}),
        ({"margin": -0.5}, {"scores_contradict": 1}),
        ({"score_diff": 2, "chosen_rating": 1, "rejected_rating": 4}, {"scores_contradict": 1}),
        ({"score_chosen": 4, "score_rejected": 1, "reward_margin": 0}, {"equal_scores": 1}),
        ({"chosen_reward": 4, "rejected_reward": 3.5}, {}),
    ],
)
def test_every_margin_is_looked_at(
    tmp_path: Path, more: dict[str, float], left: dict[str, int]
) -> None:
    found = prompts(tmp_path, {"prompt": "Q", **BOTH, **more})
    told = {why: each.count for why, each in found.account.left_out.items()}
    assert {why: told.get(why, 0) for why in ("equal_scores", "scores_contradict")} == {
        "equal_scores": left.get("equal_scores", 0),
        "scores_contradict": left.get("scores_contradict", 0),
    }
    assert (found.prompts[0].reference == "good") is (not left)


def test_a_score_of_one_side_is_no_margin(tmp_path: Path) -> None:
    row = {"prompt": "Q", **BOTH, "chosen_score": 1}
    assert why_left_out(tmp_path, row) == {"column_not_read": 1}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        # The prompt is the first turn, or a later one of the user's.
        ({"prompt": "B?", "chosen": [*LONG, assistant("good")]}, ["A?", "a", "B?"]),
        ({"prompt": "A?", "chosen": [*LONG, assistant("good")]}, ["A?", "a", "B?"]),
        # Both columns begin alike, and the longer one is meant.
        ({"prompt": LONG, "messages": LONG[:1], **BOTH}, ["A?", "a", "B?"]),
        ({"prompt": LONG[:1], "messages": LONG, **BOTH}, ["A?", "a", "B?"]),
        # A conversation beside the answers that ends in one of them.
        ({"messages": [user("Q"), assistant("good")], "prompt": "Q", **BOTH}, ["Q"]),
        ({"messages": [user("Q"), assistant("bad")], "prompt": "Q", **BOTH}, ["Q"]),
        (
            {
                "messages": [user("Q"), assistant("bad")],
                "chosen": [user("Q"), assistant("good")],
            },
            ["Q"],
        ),
    ],
)
def test_columns_that_tell_one_conversation(
    tmp_path: Path, row: dict[str, Any], turns: list[str]
) -> None:
    (found,) = told(tmp_path, row)
    assert [text for _, text in found[0]] == turns
    assert found[1] == "good"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "C?", "chosen": [*LONG, assistant("good")]},
        {"prompt": LONG, "messages": [user("A?"), assistant("x"), user("B?")], **BOTH},
        {"prompt": LONG, "messages": [user("X?"), assistant("a"), user("B?")], **BOTH},
        {"prompt": [*LONG[:2], user("X?")], "messages": LONG, **BOTH},
        {"prompt": [system("S"), user("Q")], "messages": [system("T"), user("Q")], **BOTH},
        {
            "prompt": [system("S"), user("Q")],
            "chosen": [system("T"), user("Q"), assistant("good")],
        },
    ],
)
def test_columns_that_tell_two(tmp_path: Path, row: dict[str, Any]) -> None:
    assert why_left_out(tmp_path, row) == {"columns_disagree": 1}


def test_one_side_is_whole_and_the_other_is_not(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": [user("Q"), assistant("good")], "rejected": "bad"}
    assert told_why(tmp_path, row) == "chosen and rejected differ before their last answer"


def test_rendered_sides_are_split_and_their_end_tokens_go(tmp_path: Path) -> None:
    def rendered(answer: str) -> str:
        return f"<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"

    row = {"chosen": rendered("good"), "rejected": rendered("bad")}
    assert orders(tmp_path, row) == [[("good", 0), ("bad", 1)]]
    assert told(tmp_path, row) == [([("user", "Q")], "good")]
    turns = [user("\n\nHuman: Q\n\nAssistant:"), assistant(" good")]
    assert told(tmp_path, {"chosen": turns}) == [([("user", "Q")], "good")]


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ((["good"], ["bad"]), None),
        (([assistant("good")], [assistant("bad")]), None),
        (([user("B?"), assistant("good")], [assistant("bad")]), "diverges_early"),
        (([assistant("good")], [user("B?"), assistant("bad")]), "diverges_early"),
    ],
)
def test_openais_outputs_hold_one_turn(
    tmp_path: Path, outputs: tuple[list[Any], list[Any]], why: str | None
) -> None:
    row = {"input": [user("Q")], "preferred_output": outputs[0], "non_preferred_output": outputs[1]}
    if why is None:
        assert orders(tmp_path, row) == [[("good", 0), ("bad", 1)]]
        assert prompts(tmp_path, row).format == "openai"
    else:
        assert why_left_out(tmp_path, row) == {why: 1}


@pytest.mark.parametrize(
    ("columns", "format"),
    [
        ({"instruction": "Q"}, "alpaca"),
        ({"question": "Q"}, "orca_dpo"),
        ({"input": "Q"}, "trl"),
        ({"conversation": [user("Q")]}, "capybara"),
    ],
)
@pytest.mark.parametrize("sides", [{"chosen": "good"}, {"rejected": "bad"}, BOTH])
def test_one_side_is_enough_for_a_format(
    tmp_path: Path, columns: dict[str, Any], format: str, sides: dict[str, str]
) -> None:
    found = prompts(tmp_path, columns | sides)
    assert found.account.formats == {format: 1}
    assert found.prompts[0].messages == (user("Q"),)
    assert found.prompts[0].reference == sides.get("chosen")


def test_sides_that_hold_turns_as_json_are_no_transcripts(tmp_path: Path) -> None:
    sides = [json.dumps([user("Q"), assistant(text)]) for text in ("good", "bad")]
    found = prompts(tmp_path, {"chosen": sides[0], "rejected": sides[1]})
    assert found.account.formats == {"trl": 1}
    assert found.prompts[0].reference == "good"
