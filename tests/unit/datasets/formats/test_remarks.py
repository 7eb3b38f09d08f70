"""What annotators write beside their verdicts: comments, corrections, ratings of one answer.

Tests `rewardloop.datasets.formats.exports`, `rewardloop.datasets.formats.preference`,
`rewardloop.datasets.formats.graded`.
"""

import json
from pathlib import Path
from typing import Any

from rewardloop.datasets import read_prompts, read_ranked


def argilla(fields: dict[str, str], **values: object) -> dict[str, Any]:
    answers = {question: {"value": value} for question, value in values.items()}
    return {"fields": fields, "responses": [{"values": answers, "status": "submitted"}]}


def result(name: str, about: str, **value: object) -> dict[str, Any]:
    return {"from_name": name, "to_name": about, "value": value}


def label_studio(data: dict[str, str], *results: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": data, "annotations": [{"result": list(results)}]}


def reference(folder: Path, row: dict[str, Any]) -> str | None:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    (prompt,) = read_prompts(path).prompts
    return prompt.reference


def test_a_comment_is_no_answer(tmp_path: Path) -> None:
    row = argilla({"prompt": "Q?"}, comment="A poor question.", answer="Good.")
    assert reference(tmp_path, row) == "Good."
    texts = (
        result("notes", "prompt", text=["A poor question."]),
        result("answer", "prompt", text=["Good."]),
    )
    assert reference(tmp_path, label_studio({"prompt": "Q?"}, *texts)) == "Good."


def test_a_comment_alone_annotates_nothing(tmp_path: Path) -> None:
    assert reference(tmp_path, argilla({"prompt": "Q?"}, comment="A poor question.")) is None


def test_a_comment_does_not_keep_a_preference_from_being_read(tmp_path: Path) -> None:
    data = {"prompt": "Q?", "answer1": "one", "answer2": "two"}
    row = label_studio(
        data, result("side", "x", selected="right"), result("comment", "x", text=["It is nicer."])
    )
    assert reference(tmp_path, row) == "two"


def test_feedback_in_one_word_is_a_verdict(tmp_path: Path) -> None:
    assert reference(tmp_path, argilla({"prompt": "Q?", "response": "A."}, feedback="bad")) is None


def test_a_correction_is_learnt_in_place_of_the_answer(tmp_path: Path) -> None:
    fields = {"prompt": "Q?", "response": "Wrong."}
    assert reference(tmp_path, argilla(fields, corrected_response="Right.")) == "Right."


def test_two_answers_are_rated_each_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = label_studio(
        {"prompt": "Q?", "answer1": "one", "answer2": "two"},
        result("rating_a", "answer1", rating=2),
        result("rating_b", "answer2", rating=5),
    )
    path.write_text(json.dumps(row))
    (prompt,) = read_ranked(path).prompts
    assert [(r.text, r.rank) for r in prompt.responses] == [("two", 0), ("one", 1)]
