"""Question and answer in columns: what becomes of context, labels and ratings.

Tests `rewardloop.datasets.formats.columns`, `rewardloop.datasets.formats.asked`,
`rewardloop.datasets.formats.grades`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import orders, prompts, told, user, why_left_out


@pytest.mark.parametrize(
    ("row", "question", "reference", "format"),
    [
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.\n\n1, 2", "3", "alpaca"),
        ({"instruction": "Sing.", "input": "", "output": "La."}, "Sing.", "La.", "alpaca"),
        ({"instruction": "Q", "output": "A", "generator": "m"}, "Q", "A", "alpaca"),
        (
            {"instruction": "Who?", "context": "Ada did.", "response": "Ada.", "category": "qa"},
            "Who?\n\nAda did.",
            "Ada.",
            "dolly",
        ),
        ({"question": "Q", "response": "A", "system_prompt": ""}, "Q", "A", "openorca"),
        ({"prompt": "Q", "response": "A"}, "Q", "A", "seed"),
        ({"prompt": "Q", "category": "c"}, "Q", None, "seed"),
        ({"prompt": "Q", "response": " "}, "Q", None, "seed"),
        ({"prompt": "The sky is", "completion": " blue."}, "The sky is", " blue.", "trl"),
        ({"prompt": "Q", "completion": None}, "Q", None, "trl"),
        ({"prompt": "Q"}, "Q", None, "trl"),
        ({"prompt": "Q", "output": "A"}, "Q", "A", "columns"),
        ({"question": "Q", "answer": "A"}, "Q", "A", "columns"),
        ({"question": "Q", "context": "C", "answer": "A"}, "Q\n\nC", "A", "columns"),
        ({"query": "Q", "target": "A"}, "Q", "A", "columns"),
        ({"instruction": "Q", "input": "", "output": ""}, "Q", None, "alpaca"),
    ],
)
def test_question_and_answer(
    tmp_path: Path, row: dict[str, Any], question: str, reference: str | None, format: str
) -> None:
    found = prompts(tmp_path, row)
    (prompt,) = found.prompts
    assert prompt.messages == (user(question),)
    assert (prompt.reference, found.format) == (reference, format)


def test_system_and_history_stand_before_the_question(tmp_path: Path) -> None:
    row = {
        "instruction": "And now?",
        "output": "Rain.",
        "system": "Be brief.",
        "history": [["Weather?", "Sun."], ["Still?", "Yes."]],
    }
    turns = [
        ("system", "Be brief."),
        ("user", "Weather?"),
        ("assistant", "Sun."),
        ("user", "Still?"),
        ("assistant", "Yes."),
        ("user", "And now?"),
    ]
    assert told(tmp_path, row) == [(turns, "Rain.")]


def test_history_may_hold_turns_or_be_json_in_a_text(tmp_path: Path) -> None:
    rows = [
        {"prompt": "B?", "response": "b", "history": '[["A?", "a"]]'},
        {
            "prompt": "C?",
            "response": "c",
            "history": [user("A?"), {"role": "assistant", "content": "a"}],
        },
    ]
    before = [("user", "A?"), ("assistant", "a")]
    assert told(tmp_path, *rows) == [
        ([*before, ("user", "B?")], "b"),
        ([*before, ("user", "C?")], "c"),
    ]


@pytest.mark.parametrize("history", ["earlier words", [["one"]], [3], {"a": 1}])
def test_a_history_that_is_no_turns_leaves_the_row_out(tmp_path: Path, history: Any) -> None:
    row = {"prompt": "B?", "response": "b", "history": history}
    assert why_left_out(tmp_path, row) == {"column_not_read": 1}


@pytest.mark.parametrize("column", ["label", "kto_tag", "liked", "thumbs_up", "is_desirable"])
@pytest.mark.parametrize(
    "value", [False, 0, 0.0, -1, "false", "False", "0", "no", "bad", "undesirable", "thumbs_down"]
)
def test_a_disliked_answer_is_no_reference(tmp_path: Path, column: str, value: Any) -> None:
    row = {"prompt": "Q", "completion": "wrong", column: value}
    found = prompts(tmp_path, row)
    assert [prompt.reference for prompt in found.prompts] == [None]
    assert found.account.left_out["disliked"].count == 1


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "1", "desirable", "Thumbs Up", "YES"])
def test_a_liked_answer_is_a_reference(tmp_path: Path, value: Any) -> None:
    row = {"instruction": "Q", "output": "right", "kto_tag": value}
    assert told(tmp_path, row) == [([("user", "Q")], "right")]


@pytest.mark.parametrize(
    "said",
    [
        {"is_safe": False},
        {"is_correct": "false"},
        {"helpful": 0},
        {"is_bad": True},
        {"thumbs_down": 1},
        {"harmful": "yes"},
        {"rm_score": -2.5},
        {"human_rating": 0},
        {"instruct_reward": -4.0},
    ],
)
def test_columns_that_speak_against_an_answer(tmp_path: Path, said: dict[str, Any]) -> None:
    assert told(tmp_path, {"prompt": "Q", "response": "A"} | said) == [([("user", "Q")], None)]


@pytest.mark.parametrize("said", [{"is_safe": True}, {"harmful": False}, {"thumbs_down": 0}])
def test_a_warning_that_is_not_given_is_no_praise_and_no_harm(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    assert told(tmp_path, {"prompt": "Q", "response": "A"} | said)[0][1] == "A"


@pytest.mark.parametrize("value", ["sports", "maybe", 2, 0.5, [True], {"a": 1}])
def test_a_label_that_is_not_understood_leaves_the_row_out(tmp_path: Path, value: Any) -> None:
    row = {"prompt": "Q", "completion": "A", "label": value}
    assert why_left_out(tmp_path, row) == {"label_not_understood": 1}


def test_a_null_label_says_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, {"prompt": "Q", "completion": "A", "label": None})[0][1] == "A"


def test_a_rating_on_an_unknown_scale_leaves_the_answer_out(tmp_path: Path) -> None:
    found = prompts(tmp_path, {"prompt": "Q", "response": "A", "rating": 4})
    assert found.prompts[0].reference is None
    assert found.account.left_out["unknown_scale"].count == 1


def test_ratings_of_one_prompt_become_ranks(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "response": "fair", "score": "3"},
        {"prompt": "Q", "response": "best", "score": 5},
        {"prompt": "Q", "response": "poor", "score": 0},
    ]
    assert orders(tmp_path, *rows) == [[("best", 0), ("fair", 1), ("poor", 2)]]
    assert told(tmp_path, *rows) == [([("user", "Q")], "best")]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"output": "another answer"}, "column_not_read"),
        ({"label": True, "score": 3}, "column_not_read"),
        ({"winner": "b"}, "column_not_read"),
        ({"chat_label": "bad"}, "column_not_read"),
        ({"downvotes": 7}, "column_not_read"),
        ({"persona": "a pirate"}, "column_not_read"),
        ({"image_path": "cat.png"}, "media"),
        ({"winner": "a"}, "column_not_read"),
        ({"response_b": "another answer"}, "column_not_read"),
        ({"tools": [{"name": "search"}]}, "tool_turns"),
        ({"images": ["cat.png"]}, "media"),
        ({"audio": "cat.wav"}, "media"),
        ({"videos": ["cat.mp4"]}, "media"),
    ],
)
def test_a_column_that_means_something_is_never_ignored(
    tmp_path: Path, more: dict[str, Any], why: str
) -> None:
    assert why_left_out(tmp_path, {"prompt": "Q", "completion": "A"} | more) == {why: 1}


NOTHING = [None, "", " ", [], {}, float("nan")]


@pytest.mark.parametrize(
    ("column", "nothing"),
    [
        *((column, nothing) for column in ("system", "history", "rejected") for nothing in NOTHING),
        *(
            (column, nothing)
            for column in ("tools", "images")
            for nothing in [*NOTHING, "[]", [None]]
        ),
        ("history", "[]"),
    ],
)
def test_columns_that_hold_nothing_mean_nothing(tmp_path: Path, column: str, nothing: Any) -> None:
    row = {"prompt": "Q", "completion": "A", column: nothing}
    assert told(tmp_path, row)[0][1] == "A"


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"prompt": None, "response": "A"}, '"prompt" is null, not a text'),
        ({"prompt": True, "response": "A"}, '"prompt" is a boolean, not a text'),
        ({"prompt": "Q", "response": 3}, '"response" is a number, not a text'),
        ({"instruction": "Q", "input": 3, "output": "A"}, "is a number, not a text"),
    ],
)
def test_malformed_values_are_told(tmp_path: Path, row: dict[str, Any], detail: str) -> None:
    found = prompts(tmp_path, {"prompt": "good"}, row)
    assert len(found.prompts) == 1
    assert detail in found.account.left_out["malformed"].detail
    assert found.account.left_out["malformed"].first_line == 2


def test_none_and_empty_lists_are_answers_like_others(tmp_path: Path) -> None:
    rows = [{"prompt": "How many?", "response": "None"}, {"prompt": "list()?", "response": "[]"}]
    assert [reference for _, reference in told(tmp_path, *rows)] == ["None", "[]"]


def test_an_empty_column_that_is_no_grade_takes_no_reference_back(tmp_path: Path) -> None:
    """A label that is empty here and filled elsewhere does."""
    rows = [{"prompt": "Q", "completion": "a"}, {"prompt": "R", "completion": "b"}]
    for column, filled, reference in (("system", "S", "a"), ("label", True, None)):
        found = prompts(tmp_path, rows[0] | {column: None}, rows[1] | {column: filled})
        assert [prompt.reference for prompt in found.prompts] == [reference, "b"], column
