"""Exports of Argilla and Label Studio.

Tests `rewardloop.datasets.formats.exports`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import orders, prompts, ranked, told, why_left_out

PAIR = {"prompt": "Q", "response1": "a", "response2": "b"}
RANKING = [{"value": "response1", "rank": 2}, {"value": "response2", "rank": 1}]


def v1(*values: Any, fields: Any = None, status: str = "submitted") -> dict[str, Any]:
    responses = [
        {"user_id": "u", "values": {"preference": {"value": value}}, "status": status}
        for value in values
    ]
    return {"fields": fields or PAIR, "responses": responses, "suggestions": []}


def v2(*values: Any, fields: Any = None, status: str = "completed") -> dict[str, Any]:
    return {
        "id": "7",
        "status": status,
        "fields": fields or PAIR,
        "metadata": {},
        "suggestions": {"preference": {"value": "response1", "agent": "m"}},
        "responses": {"preference": [{"value": value, "user_id": "u"} for value in values]},
    }


def label_studio(*results: dict[str, Any], cancelled: bool = False, **data: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "data": data or {"prompt": "Q", "answer1": "a", "answer2": "b"},
        "annotations": [
            {
                "result": [{"from_name": "r", "type": "t", "value": value} for value in results],
                "was_cancelled": cancelled,
            }
        ],
        "predictions": [{"result": [{"value": {"selected": "left"}}]}],
    }


@pytest.mark.parametrize(
    ("row", "order"),
    [
        (v1("response1"), "ab"),
        (v1(RANKING), "ba"),
        (v2("response2"), "ba"),
        (v2("Response-2"), "ba"),
        (v2(RANKING), "ba"),
        (v2("right"), "ba"),
        (
            PAIR
            | {"preference": [{"value": RANKING, "status": "submitted"}], "p-suggestion": None},
            "ba",
        ),
        (
            PAIR
            | {
                "preference": [{"value": {"value": ["response1", "response2"], "rank": [1, 2]}}],
                "preference-suggestion": {"value": ["response2"], "rank": [1]},
            },
            "ab",
        ),
        (
            PAIR
            | {
                "status": "completed",
                "pick.responses": ["response2"],
                "pick.responses.users": ["u"],
                "pick.responses.status": ["submitted"],
                "pick.suggestion": "response1",
                "pick.suggestion.score": 0.9,
            },
            "ba",
        ),
        (label_studio({"selected": "left"}), "ab"),
        (label_studio({"selected": "right"}), "ba"),
        (label_studio({"choices": ["answer2"]}), "ba"),
    ],
)
def test_a_verdict_is_two_ranks(tmp_path: Path, row: dict[str, Any], order: str) -> None:
    (found,) = orders(tmp_path, row)
    assert [text for text, _ in found] == list(order)
    assert told(tmp_path, row) == [([("user", "Q")], order[0])]


def test_a_written_answer_is_a_reference(tmp_path: Path) -> None:
    row = {
        "prompt": "Q",
        "response": [{"value": "written", "status": "submitted"}],
        "prompt-suggestion": None,
    }
    assert told(tmp_path, row) == [([("user", "Q")], "written")]


@pytest.mark.parametrize(
    "row",
    [
        v1("response1", status="discarded"),
        v1("response1", status="draft"),
        label_studio({"selected": "left"}, cancelled=True),
    ],
)
def test_what_annotators_took_back_says_nothing(tmp_path: Path, row: dict[str, Any]) -> None:
    found = prompts(tmp_path, row)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out["rejected_by_reviewers"].count == 1


def test_a_discarded_record_is_left_out(tmp_path: Path) -> None:
    assert why_left_out(tmp_path, v2("response1", status="discarded")) == {
        "rejected_by_reviewers": 1
    }


@pytest.mark.parametrize("row", [v1(), v2(), label_studio()])
def test_without_annotations_there_is_no_order(tmp_path: Path, row: dict[str, Any]) -> None:
    found = prompts(tmp_path, row)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out["not_annotated"].count == 1


def test_annotators_who_disagree_leave_no_order(tmp_path: Path) -> None:
    row = v1("response1", "response2")
    found = ranked(tmp_path, row, v1("response1", fields=PAIR | {"prompt": "R"}))
    assert len(found.prompts) == 1
    assert found.left_out["contradictory_order"] == 2


def test_one_cancelled_and_one_good_annotation(tmp_path: Path) -> None:
    row = label_studio({"selected": "left"}, cancelled=True)
    row["annotations"].append({"result": [{"value": {"selected": "right"}}]})
    assert told(tmp_path, row) == [([("user", "Q")], "b")]


@pytest.mark.parametrize(
    ("value", "why"),
    [(5, "unknown_scale"), ("bad", "disliked"), (False, "disliked"), (0, "low_rating")],
)
def test_one_answer_that_is_rated_or_labelled(tmp_path: Path, value: Any, why: str) -> None:
    found = prompts(tmp_path, v2(value, fields={"instruction": "Q", "response": "a"}))
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out[why].count == 1


def test_a_label_studio_rating(tmp_path: Path) -> None:
    row = label_studio({"rating": 4}, prompt="Q", response="a")
    assert prompts(tmp_path, row).account.left_out["unknown_scale"].count == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (v2("response7"), "label_not_understood"),
        (v2(3), "label_not_understood"),
        (v1([{"value": "other", "rank": 1}]), "label_not_understood"),
        (label_studio({"brushlabels": ["x"]}), "label_not_understood"),
        (label_studio({"selected": "left"}, image="x.png"), "no_prompt"),
        (v2("response1", fields={"title": "Q"}), "no_prompt"),
    ],
)
def test_records_that_are_left_out(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert why_left_out(tmp_path, row) == {why: 1}
