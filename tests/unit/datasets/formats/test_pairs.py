"""Two answers and a verdict.

Tests `rewardloop.datasets.formats.pairs`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import assistant, orders, prompts, system, told, user, why_left_out

FIRST = [("a", 0), ("b", 1)]
SECOND = [("b", 0), ("a", 1)]


def helpsteer2(strength: Any) -> dict[str, Any]:
    return {
        "split": "train",
        "prompt": "Q",
        "response_1": "a",
        "response_2": "b",
        "preference_strength": strength,
        "preference_statement": "because",
    }


def alpaca_farm(preference: Any) -> dict[str, Any]:
    outputs = {"output_1": "a", "output_2": "b"}
    return {"instruction": "Q", "input": "", **outputs, "preference": preference}


def helpsteer3(strength: Any, **more: Any) -> dict[str, Any]:
    return {
        "domain": "general",
        "language": "english",
        "context": [user("Q")],
        "response1": "a",
        "response2": "b",
        "overall_preference": strength,
        "individual_preference": [{"score": 1, "reasoning": "r"}],
    } | more


def safe(
    better: Any, *, safe_0: bool = True, safe_1: bool = True, safer: int = 0
) -> dict[str, Any]:
    return {
        "prompt": "Q",
        "response_0": "a",
        "response_1": "b",
        "is_response_0_safe": safe_0,
        "is_response_1_safe": safe_1,
        "better_response_id": better,
        "safer_response_id": safer,
        "response_0_severity_level": 0,
    }


def shp(label: Any) -> dict[str, Any]:
    return {
        "post_id": "p",
        "history": "Q",
        "human_ref_A": "a",
        "human_ref_B": "b",
        "labels": label,
        "score_A": 3,
        "score_B": 9,
        "upvote_ratio": 0.9,
    }


def webgpt(first: Any, second: Any) -> dict[str, Any]:
    return {
        "question": {"dataset": "d", "id": "i", "full_text": "Q"},
        "quotes_0": {"title": ["t"]},
        "answer_0": "a",
        "score_0": first,
        "tokens_0": {"prefix": [1]},
        "answer_1": "b",
        "score_1": second,
    }


def arena(winner: Any, *extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "question_id": "x",
        "model_a": "m",
        "model_b": "n",
        "winner": winner,
        "conversation_a": [user("Q"), assistant("a"), *extra],
        "conversation_b": [user("Q"), assistant("b"), *extra],
        "turn": 1,
        "anony": True,
        "language": "English",
        "toxic_chat_tag": {"flagged": False},
    }


@pytest.mark.parametrize(
    ("row", "order"),
    [
        (helpsteer2(-3), FIRST),
        (helpsteer2(1), SECOND),
        (helpsteer2("2"), SECOND),
        (alpaca_farm(1), FIRST),
        (alpaca_farm("2"), SECOND),
        (helpsteer3(-1), FIRST),
        (helpsteer3(3), SECOND),
        (helpsteer3(2.0, context="Q"), SECOND),
        (safe(0), FIRST),
        (safe(1.0), SECOND),
        (safe(1, safe_0=False, safer=1), SECOND),
        (shp(1), FIRST),
        (shp(0), SECOND),
        (shp(True), FIRST),
        (webgpt(0.5, -0.5), FIRST),
        (webgpt(-1.0, 1.0), SECOND),
        (arena("model_a"), FIRST),
        (arena("model_b"), SECOND),
    ],
)
def test_a_verdict_is_two_ranks(
    tmp_path: Path, row: dict[str, Any], order: list[tuple[str, int]]
) -> None:
    assert orders(tmp_path, row) == [order]
    assert told(tmp_path, row) == [([("user", "Q")], order[0][0])]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (helpsteer2(0), "no_grade"),
        (helpsteer3(0), "no_grade"),
        (arena("tie"), "no_grade"),
        (arena("tie (bothbad)"), "disliked"),
        (safe(0, safe_0=False, safe_1=False), "disliked"),
        (safe(1, safe_1=False), "scores_contradict"),
        (webgpt(0.0, 0.0), "low_rating"),
    ],
)
def test_a_tie_and_a_bad_pair_have_no_reference(
    tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    found = prompts(tmp_path, row)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert why in found.account.left_out


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (helpsteer2(4), "label_not_understood"),
        (helpsteer2("much better"), "label_not_understood"),
        (alpaca_farm(1.5), "label_not_understood"),
        (helpsteer3(None), "not_annotated"),
        (safe(2), "label_not_understood"),
        (shp(3), "label_not_understood"),
        (webgpt("high", 0), "label_not_understood"),
        (webgpt(None, 0), "label_not_understood"),
        (arena("nobody"), "label_not_understood"),
        (arena("model_a", user("R"), assistant("r")), "vote_over_turns"),
        (arena("model_a") | {"conversation_b": [user("S"), assistant("b")]}, "columns_disagree"),
        (arena("model_a") | {"language": "German"}, "prompt_other_language"),
        (helpsteer3(1) | {"language": "chinese"}, "prompt_other_language"),
    ],
)
def test_rows_that_are_left_out(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert why_left_out(tmp_path, row) == {why: 1}


def test_a_programming_language_is_no_human_one(tmp_path: Path) -> None:
    assert len(prompts(tmp_path, helpsteer3(1, domain="code", language="python")).prompts) == 1


def test_all_languages(tmp_path: Path) -> None:
    row = arena("model_a") | {"language": "German"}
    assert len(prompts(tmp_path, row, language=None).prompts) == 1
    assert len(prompts(tmp_path, row, language="de").prompts) == 1


def test_a_system_turn_of_both_sides_is_no_second_turn(tmp_path: Path) -> None:
    row = arena("model_a")
    for side in ("conversation_a", "conversation_b"):
        row[side] = [system("S"), *row[side]]
    assert told(tmp_path, row) == [([("system", "S"), ("user", "Q")], "a")]


def test_equal_answers_are_no_pair(tmp_path: Path) -> None:
    found = prompts(tmp_path, helpsteer2(-3) | {"response_2": "a "})
    assert found.prompts[0].reference is None
    assert found.account.left_out["equal_sides"].count == 1


def test_turn_marks_of_helpsteer2(tmp_path: Path) -> None:
    row = helpsteer2(-1) | {"prompt": "A?\n<extra_id_1>Assistant\na\n<extra_id_1>User\nB?"}
    assert told(tmp_path, row)[0][0] == [("user", "A?"), ("assistant", "a"), ("user", "B?")]
