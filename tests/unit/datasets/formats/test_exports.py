"""Exports of Argilla and Label Studio.

Tests `rewardloop.datasets.formats.exports`.
"""

from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets.form import Ranked, Rated, Scale
from tests.unit.datasets.rows import orders, prompts, ranked, told, told_why, why_left_out

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


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("response1", "ab"),
        ("response2", "ba"),
        ("1", "ab"),
        ("2", "ba"),
        ("left", "ab"),
        ("Right ", "ba"),
    ],
)
def test_an_answer_is_named_by_field_mark_or_side(tmp_path: Path, value: str, order: str) -> None:
    (found,) = orders(tmp_path, v2(value))
    assert [text for text, _ in found] == list(order)


@pytest.mark.parametrize("value", ["tie", "Both", "no preference"])
def test_a_tie_is_one_rank(tmp_path: Path, value: str) -> None:
    found = prompts(tmp_path, v2(value))
    assert found.prompts[0].reference is None
    assert found.account.num_ranked == 0
    (example,) = found.account.examples
    assert [candidate.grade for candidate in example.candidates] == [Ranked(0), Ranked(0)]


THREE = {"prompt": "Q", "answer_a": "a", "answer_b": "b", "answer_c": "c"}


def test_of_three_answers_a_choice_says_too_little_and_a_ranking_all(tmp_path: Path) -> None:
    for value in ("answer_a", "left", "b"):
        assert why_left_out(tmp_path, v2(value, fields=THREE)) == {"label_not_understood": 1}
    ranks = [{"value": f"answer_{mark}", "rank": rank} for mark, rank in (("c", 1), ("a", 2))]
    assert orders(tmp_path, v2(ranks, fields=THREE)) == [[("c", 1), ("a", 2)]]
    lists = {"value": ["answer_b", "answer_a", "answer_c"], "rank": [1, 2, 3]}
    assert orders(tmp_path, v1(lists, fields=THREE)) == [[("b", 1), ("a", 2), ("c", 3)]]


@pytest.mark.parametrize(
    "value",
    [
        [{"value": "response1", "rank": 1}, {"value": "response9", "rank": 2}],
        [{"value": "response1"}],
        ["response1"],
        {"value": ["response1", "response2"], "rank": [1]},
        {"value": "response1", "rank": 1},
        {"rank": [1, 2]},
    ],
)
def test_a_ranking_that_is_not_understood(tmp_path: Path, value: Any) -> None:
    assert why_left_out(tmp_path, v1(value)) == {"label_not_understood": 1}


def test_answers_whose_marks_are_the_same_are_named_by_their_fields(tmp_path: Path) -> None:
    fields = {"prompt": "Q", "answer1": "a", "text1": "b"}
    assert why_left_out(tmp_path, v2("1", fields=fields)) == {"label_not_understood": 1}
    assert told(tmp_path, v2("text1", fields=fields)) == [([("user", "Q")], "b")]


def rating(name: str, about: str | None, value: float) -> dict[str, Any]:
    told = {} if about is None else {"to_name": about}
    return {"from_name": name, "value": {"rating": value}, **told}


def rated(*results: dict[str, Any], **data: str) -> dict[str, Any]:
    data = data or {"prompt": "Q", "answer1": "a", "answer2": "b"}
    return {"id": 1, "data": data, "annotations": [{"result": list(results)}]}


def test_a_rating_is_about_the_field_that_it_names(tmp_path: Path) -> None:
    row = rated(rating("r_1", "answer1", 2), rating("r_2", "answer2", 5))
    assert orders(tmp_path, row) == [[("b", 0), ("a", 1)]]
    for about in (None, "prompt", "answer3"):
        row = rated(rating("r", about, 2))
        assert why_left_out(tmp_path, row) == {"label_not_understood": 1}, about


def test_the_rating_of_the_one_answer_need_not_name_it(tmp_path: Path) -> None:
    for about in (None, "prompt", "answer"):
        row = rated(rating("stars", about, 4), prompt="Q", answer="a")
        (example,) = prompts(tmp_path, row).account.examples
        assert [c.grade for c in example.candidates] == [Rated(4, Scale("stars"))]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"choices": ["answer1", "answer2"]}, "label_not_understood"),
        ({"choices": []}, "label_not_understood"),
        ({"choices": ["answer2"]}, None),
        ({"choices": "answer2"}, None),
        ({"text": "answer2"}, None),
    ],
)
def test_a_choice_is_one_text(tmp_path: Path, value: dict[str, Any], why: str | None) -> None:
    row = label_studio(value)
    if why is None:
        assert told(tmp_path, row) == [([("user", "Q")], "b")]
    else:
        assert why_left_out(tmp_path, row) == {why: 1}


@pytest.mark.parametrize(
    ("statuses", "reference"),
    [
        (["submitted", "submitted"], None),
        (["submitted", "discarded"], "a"),
        (["discarded", "submitted"], "b"),
        (["submitted"], None),
        (None, None),
    ],
)
def test_each_value_has_the_status_at_its_place(
    tmp_path: Path, statuses: list[str] | None, reference: str | None
) -> None:
    row = PAIR | {"pick.responses": ["response1", "response2"]}
    row |= {"pick.responses.status": statuses}
    assert told(tmp_path, row) == [([("user", "Q")], reference)]


def test_a_column_of_responses_is_a_list(tmp_path: Path) -> None:
    row = PAIR | {"pick.responses": "response1"}
    assert told_why(tmp_path, row) == '"pick.responses" is a text, not a list'


def test_a_correction_stands_before_the_answer_that_it_corrects(tmp_path: Path) -> None:
    values = {"corrected_response": {"value": "better"}}
    row = {"fields": {"prompt": "Q", "response": "a"}, "responses": [{"values": values}]}
    assert told(tmp_path, row) == [([("user", "Q")], "better")]
    (example,) = prompts(tmp_path, row).account.examples
    assert [candidate.text for candidate in example.candidates] == ["better", "a"]


def test_an_input_field_follows_the_instruction(tmp_path: Path) -> None:
    row = v2("good", fields={"instruction": "Q", "input": "i", "response": "a"})
    assert told(tmp_path, row) == [([("user", "Q\n\ni")], "a")]
    row = v2("good", fields={"context": "Q", "response": "a"})
    assert told(tmp_path, row) == [([("user", "Q")], "a")]


def test_responses_that_are_no_objects(tmp_path: Path) -> None:
    row = v1("response1") | {"responses": ["response1"]}
    assert told_why(tmp_path, row) == '"responses" holds what is no object'
