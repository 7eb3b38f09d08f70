"""Several graded answers under common names: two with a verdict, lists, several rejected ones.

Tests `rewardloop.datasets.formats.two_answers`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import read_prompts, read_ranked
from rewardloop.errors import InvalidInput
from tests.unit.datasets.rows import orders, told


def ranking(folder: Path, row: dict[str, Any]) -> list[tuple[str, int]]:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    (prompt,) = read_ranked(path).prompts
    return [(response.text, response.rank) for response in prompt.responses]


@pytest.mark.parametrize(
    ("columns", "verdict", "best"),
    [
        (("response_a", "response_b"), {"winner": "model_b"}, "two"),
        (("answer_A", "answer_B"), {"label": "A"}, "one"),
        (("completion_a", "completion_b"), {"preferred": "completion_b"}, "two"),
        (("answer1", "answer2"), {"choice": "answer2"}, "two"),
        (("response_0", "response_1"), {"preference": 1}, "two"),
        (("response_0", "response_1"), {"preference": 0.0}, "one"),
    ],
)
def test_a_verdict_names_one_of_two(
    tmp_path: Path, columns: tuple[str, str], verdict: dict[str, Any], best: str
) -> None:
    row = {"prompt": "Q?", columns[0]: "one", columns[1]: "two", **verdict}
    other = "one" if best == "two" else "two"
    assert ranking(tmp_path, row) == [(best, 0), (other, 1)]


@pytest.mark.parametrize("verdict", [1, 2, 0, "1", True, "C", "neither"])
def test_a_verdict_that_may_mean_either_is_not_guessed(tmp_path: Path, verdict: object) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "Q?", "response_1": "one", "response_2": "two", "preference": verdict}
    path.write_text(json.dumps(row))
    with pytest.raises(InvalidInput, match='"preference" is'):
        read_ranked(path)


def test_two_bad_answers_are_no_references(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "Q?", "response_a": "one", "response_b": "two", "winner": "tie (bothbad)"}
    path.write_text(json.dumps(row))
    found = read_prompts(path)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out["disliked"].count == 2


@pytest.mark.parametrize(
    "answers",
    [
        {"responses": ["one", "two"], "ranks": [2, 1]},
        {"completions": ["one", "two"], "rank": [2, 1]},
    ],
)
def test_ranks_stand_in_a_list_of_their_own(tmp_path: Path, answers: dict[str, Any]) -> None:
    assert ranking(tmp_path, {"prompt": "Q?", **answers}) == [("two", 1), ("one", 2)]


@pytest.mark.parametrize(
    ("column", "text", "rating"),
    [
        ("responses", "text", "score"),
        ("answers", "answer", "rating"),
        ("outputs", "output", "stars"),
    ],
)
def test_answers_hold_their_own_rating(tmp_path: Path, column: str, text: str, rating: str) -> None:
    answers = [{text: "one", rating: 1, "id": 7}, {text: "two", rating: 5}]
    assert ranking(tmp_path, {"question": "Q?", column: answers}) == [("two", 0), ("one", 1)]


def test_a_deleted_answer_in_a_list_is_not_passed_by(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    answers = [{"text": "one", "score": 1}, {"text": "two", "score": 5, "deleted": True}]
    path.write_text(json.dumps({"prompt": "Q?", "answers": answers}))
    with pytest.raises(InvalidInput, match="deleted"):
        read_ranked(path)


def test_several_rejected_answers_share_the_last_place(tmp_path: Path) -> None:
    row = {"prompt": "Q?", "chosen": ["good"], "rejected": ["bad", "worse"]}
    assert ranking(tmp_path, row) == [("good", 0), ("bad", 1), ("worse", 1)]


@pytest.mark.parametrize(
    ("beside", "reason"),
    [({"margin": -1.5}, "scores_contradict"), ({"reward_margin": 0}, "equal_scores")],
)
def test_a_margin_that_is_not_above_zero_is_no_order(
    tmp_path: Path, beside: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Q?", "chosen": "one", "rejected": "two", **beside}))
    found = read_prompts(path)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out[reason].count == 1


def test_guanacos_turns_follow_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "### Human: Q?### Assistant: A.### Human: More?"}))
    (prompt,) = read_prompts(path).prompts
    assert prompt.messages == ({"role": "user", "content": "Q?"},)
    assert prompt.reference == "A."


@pytest.mark.parametrize("mark", [{"flagged": True}, {"isRejected": "yes"}, {"rating": 1}])
def test_what_a_ranked_answer_says_of_itself_is_not_passed_by(
    tmp_path: Path, mark: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    answers = [{"text": "one", "rank": 0} | mark, {"text": "two", "rank": 1}]
    path.write_text(json.dumps({"prompt": "Q?", "responses": answers}))
    with pytest.raises(InvalidInput, match="reply 1"):
        read_ranked(path)


@pytest.mark.parametrize(
    "question", [{"input": "Q"}, {"prompt": [{"role": "user", "content": "Q"}]}]
)
def test_the_question_in_any_of_its_columns(tmp_path: Path, question: dict[str, Any]) -> None:
    row = question | {"response_a": "a", "response_b": "b", "winner": "b"}
    assert told(tmp_path, row) == [([("user", "Q")], "b")]
    assert orders(tmp_path, row) == [[("b", 0), ("a", 1)]]
