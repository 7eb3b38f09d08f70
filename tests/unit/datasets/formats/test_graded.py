"""Answers that carry a rank or a rating of their own.

Tests `rewardloop.datasets.formats.graded`, `rewardloop.datasets.formats.grades`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import orders, prompts, ranked, told, told_why, user, why_left_out


def ours(*responses: tuple[Any, Any], prompt: Any = "Q") -> dict[str, Any]:
    rows = [{"rank": rank, "text": text} for text, rank in responses]
    return {"id": "r1", "category": "c", "prompt": prompt, "responses": rows}


def nectar(*answers: tuple[str, Any]) -> dict[str, Any]:
    rows = [{"answer": text, "model": "m", "rank": rank} for text, rank in answers]
    return {
        "prompt": "\n\nHuman: Q\n\nAssistant: ",
        "answers": rows,
        "turns": 1,
        "num_responses": len(rows),
        "source": ["s"],
        "good_natured": True,
    }


def ultrafeedback(*scores: Any, **more: Any) -> dict[str, Any]:
    completions = [
        {"model": "m", "response": f"a{n}", "overall_score": score, "principle": "p"} | more
        for n, score in enumerate(scores)
    ]
    return {
        "source": "s",
        "instruction": "Q",
        "models": ["m"],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def helpsteer(response: str, helpfulness: Any) -> dict[str, Any]:
    return {
        "prompt": "Q",
        "response": response,
        "helpfulness": helpfulness,
        "correctness": 4,
        "coherence": 4,
        "complexity": 1,
        "verbosity": 1,
    }


def prometheus(score: Any) -> dict[str, Any]:
    return {
        "instruction": "###Task Description: ...",
        "output": "Feedback [RESULT] 3",
        "orig_instruction": "Q",
        "orig_response": "a",
        "orig_score": score,
        "orig_reference_answer": "ideal",
        "orig_criteria": "c",
        "orig_score1_description": "d",
    }


def summary(choice: Any) -> dict[str, Any]:
    return {
        "info": {"id": "t", "post": "P", "title": "T", "subreddit": "s"},
        "summaries": [{"text": "a", "policy": "p"}, {"text": "b", "policy": "p"}],
        "choice": choice,
        "worker": "w",
        "extra": {"confidence": 8},
    }


@pytest.mark.parametrize(
    ("ranks", "kept"),
    [
        ([3, 7], [3, 7]),
        ([0.0, 1.0], [0, 1]),
        (["1", "2"], [1, 2]),
        ([1, 2], [1, 2]),
        (["0.0", 1], [0, 1]),
    ],
)
def test_ranks_of_any_spelling(tmp_path: Path, ranks: list[Any], kept: list[int]) -> None:
    row = ours(("best", ranks[0]), ("worse", ranks[1]))
    assert orders(tmp_path, row) == [[("best", kept[0]), ("worse", kept[1])]]
    assert told(tmp_path, row) == [([("user", "Q")], "best")]


@pytest.mark.parametrize("rank", [True, -1, 0.5, "first", [0], 2**31, "inf"])
def test_a_malformed_rank_leaves_the_row_out(tmp_path: Path, rank: Any) -> None:
    assert why_left_out(tmp_path, ours(("a", 0), ("b", rank))) == {"malformed": 1}


def test_a_prompt_of_several_turns(tmp_path: Path) -> None:
    turns = [user("A?"), {"role": "assistant", "content": "a"}, user("B?")]
    (found,) = ranked(tmp_path, ours(("best", 0), ("worse", 1), prompt=turns)).prompts
    assert found.prompt.messages == tuple(turns)


@pytest.mark.parametrize(
    ("responses", "reference"),
    [
        ([("only", 0)], "only"),
        ([("only", 1)], "only"),
        ([("only", 4)], None),
        ([("a", 0), ("b", 0)], None),
        ([("x" * 20_001, 0), ("lost", 1)], None),
        ([("x" * 20_001, 0), ("second", 1), ("third", 2)], "second"),
        ([("", 0), ("lost", 1)], None),
        ([], None),
    ],
)
def test_the_worst_is_never_a_reference(
    tmp_path: Path, responses: list[tuple[str, int]], reference: str | None
) -> None:
    assert told(tmp_path, ours(*responses)) == [([("user", "Q")], reference)]


def test_nectar(tmp_path: Path) -> None:
    row = nectar(("third", 3.0), ("best", 1.0), ("second", 2.0))
    assert orders(tmp_path, row) == [[("best", 1), ("second", 2), ("third", 3)]]
    assert told(tmp_path, row) == [([("user", "Q")], "best")]


def test_ultrafeedback_ratings_become_ranks_and_equal_ones_a_tie(tmp_path: Path) -> None:
    row = ultrafeedback(7, 9.5, 2, 7.0)
    assert orders(tmp_path, row) == [[("a1", 0), ("a0", 1), ("a3", 1), ("a2", 2)]]
    found = ranked(tmp_path, row)
    assert found.left_out == {"equal_ranks": 1}
    assert found.prompts[0].prompt.reference == "a1"


def test_ultrafeedback_of_which_none_is_good(tmp_path: Path) -> None:
    found = prompts(tmp_path, ultrafeedback(5.5, 3))
    assert found.prompts[0].reference is None
    assert found.account.left_out["low_rating"].count == 1


def test_a_score_of_10_against_failures_on_every_aspect(tmp_path: Path) -> None:
    row = ultrafeedback(10, 7)
    row["completions"][0]["fine-grained_score"] = 1.25
    row["completions"][1]["fine-grained_score"] = 4.0
    found = prompts(tmp_path, row)
    assert found.prompts[0].reference == "a1"
    assert found.account.left_out["scores_contradict"].count == 1


def test_ultrafeedback_by_its_fine_grained_score(tmp_path: Path) -> None:
    row = ultrafeedback(None, None)
    for completion, score in zip(row["completions"], (2.0, 4.75), strict=True):
        completion["fine-grained_score"] = score
    assert orders(tmp_path, row) == [[("a1", 0), ("a0", 1)]]


@pytest.mark.parametrize(("rating", "reference"), [(3, "a"), ("4", "a"), (2, None), (0, None)])
def test_a_lone_rating_is_good_above_the_middle(
    tmp_path: Path, rating: Any, reference: str | None
) -> None:
    assert told(tmp_path, helpsteer("a", rating)) == [([("user", "Q")], reference)]


def test_helpsteer_rows_of_one_prompt_come_together_in_any_order(tmp_path: Path) -> None:
    rows = [helpsteer("poor", 1), helpsteer("best", 4), helpsteer("fair", 3)]
    for order in (rows, rows[::-1]):
        assert orders(tmp_path, *order) == [[("best", 0), ("fair", 1), ("poor", 2)]]
        assert told(tmp_path, *order) == [([("user", "Q")], "best")]


def test_several_ratings_of_one_answer_are_averaged(tmp_path: Path) -> None:
    rows = [helpsteer("a", 4), helpsteer("a", 1), helpsteer("b", 3)]
    assert orders(tmp_path, *rows) == [[("b", 0), ("a", 1)]]


@pytest.mark.parametrize("score", [1, "2", 4.0, 5])
def test_prometheus_reference_is_what_gets_the_full_score(tmp_path: Path, score: Any) -> None:
    assert told(tmp_path, prometheus(score)) == [([("user", "Q")], "ideal")]


def test_prometheus_response_is_ranked_below_the_reference(tmp_path: Path) -> None:
    assert orders(tmp_path, prometheus(2)) == [[("ideal", 0), ("a", 1)]]


def test_distilabel(tmp_path: Path) -> None:
    row = {
        "instruction": "Q",
        "generations": ["a", "b"],
        "ratings": [2.0, 5.0],
        "rationales": ["r"],
    }
    assert orders(tmp_path, row) == [[("b", 0), ("a", 1)]]
    assert why_left_out(tmp_path, row | {"ratings": [1]}) == {"malformed": 1}


@pytest.mark.parametrize("texts", ["responses", "completions", "answers"])
@pytest.mark.parametrize("ratings", ["scores", "rewards", "ratings"])
def test_lists_of_texts_and_ratings(tmp_path: Path, texts: str, ratings: str) -> None:
    row = {"prompt": "Q", texts: ["a", "b", "c"], ratings: [-0.5, 7.25, None]}
    assert orders(tmp_path, row) == [[("b", 0), ("a", 1)]]
    assert told(tmp_path, row) == [([("user", "Q")], "b")]


def test_rows_with_one_answer_and_its_rank(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "response": text, "rank": rank}
        for text, rank in (("second", "2"), ("best", 1.0), ("third", 3))
    ]
    assert orders(tmp_path, *rows) == [[("best", 0), ("second", 1), ("third", 2)]]
    assert told(tmp_path, *rows) == [([("user", "Q")], "best")]
    assert told(tmp_path, rows[2]) == [([("user", "Q")], None)]


def test_stack_exchange(tmp_path: Path) -> None:
    answers = [
        {"answer_id": 1, "pm_score": score, "selected": score == 4, "text": text}
        for text, score in (("a", 1), ("b", 4), ("c", -1))
    ]
    row = {"qid": 7, "question": "Q", "answers": answers, "date": "d", "metadata": ["url"]}
    assert orders(tmp_path, row) == [[("b", 0), ("a", 1), ("c", 2)]]
    assert prompts(tmp_path, row).prompts[0].source == "stack_exchange:7"
    lone = row | {"answers": answers[2:]}
    assert told(tmp_path, lone) == [([("user", "Q")], None)]


@pytest.mark.parametrize(("choice", "best"), [(0, "a"), (1.0, "b")])
def test_summaries(tmp_path: Path, choice: Any, best: str) -> None:
    ((turns, reference),) = told(tmp_path, summary(choice))
    assert turns[0][1].endswith("T\n\nP")
    assert reference == best


def test_a_summary_with_scores(tmp_path: Path) -> None:
    row = {"info": {"post": "P"}, "summary": {"text": "s", "axes": {"overall": 7}}}
    assert told(tmp_path, row)[0][1] == "s"
    row["summary"]["axes"] = {"overall": None}
    assert why_left_out(tmp_path, row) == {"not_annotated": 1}


@pytest.mark.parametrize(
    "row",
    [
        summary(2),
        ultrafeedback("high"),
        helpsteer("a", "very"),
        prometheus("good"),
    ],
)
def test_grades_that_are_not_understood(tmp_path: Path, row: dict[str, Any]) -> None:
    assert why_left_out(tmp_path, row) == {"label_not_understood": 1}


def alone(score: Any) -> dict[str, Any]:
    """A Prometheus row without its reference answer."""
    return {"orig_instruction": "Q", "orig_response": "a", "orig_score": score}


def fine_grained(score: Any) -> dict[str, Any]:
    return ultrafeedback(None, **{"fine-grained_score": score})


def of_a_list(ratings: str, score: Any) -> dict[str, Any]:
    return {"prompt": "Q", "answers": ["a"], ratings: [score]}


def axes(overall: Any) -> dict[str, Any]:
    return {"info": {"post": "P"}, "summary": {"text": "a", "axes": {"overall": overall}}}


@pytest.mark.parametrize(
    ("row", "middle"),
    [
        (ultrafeedback, 5.5),
        (fine_grained, 3),
        (lambda score: helpsteer("a", score), 2),
        (alone, 3),
        (lambda score: of_a_list("ratings", score), 3),
        (axes, 4),
    ],
)
def test_a_rating_is_good_above_the_middle_of_its_scale(
    tmp_path: Path, row: Callable[[float], dict[str, Any]], middle: float
) -> None:
    for score, is_good in ((middle + 0.25, True), (middle, False), (middle - 0.25, False)):
        (found,) = told(tmp_path, row(score))
        assert (found[1] is not None) is is_good, score


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (of_a_list("ratings", 1), "low_rating"),
        (of_a_list("ratings", 0.75), "unknown_scale"),
        (of_a_list("ratings", 5.25), "unknown_scale"),
        (of_a_list("scores", 4), "unknown_scale"),
        (of_a_list("rewards", 4), "unknown_scale"),
    ],
)
def test_only_lists_of_ratings_from_1_to_5_are_of_a_known_scale(
    tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    found = prompts(tmp_path, row)
    assert found.prompts[0].reference is None
    assert {reason: left.count for reason, left in found.account.left_out.items()} == {why: 1}


def test_the_whole_scale_of_a_list_is_known(tmp_path: Path) -> None:
    assert told(tmp_path, of_a_list("ratings", 5)) == [([("user", "Q")], "a")]


@pytest.mark.parametrize(
    ("overall", "fine", "reference"),
    [(9, 2, None), (10, 1, None), (8.75, 2, "a0"), (9, 2.25, "a0")],
)
def test_scores_contradict_from_9_against_2(
    tmp_path: Path, overall: float, fine: float, reference: str | None
) -> None:
    row = ultrafeedback(overall, **{"fine-grained_score": fine})
    assert told(tmp_path, row) == [([("user", "Q")], reference)]


def test_ranks_in_a_list_of_their_own(tmp_path: Path) -> None:
    for column in ("ranks", "rank"):
        row = {"instruction": "Q", "outputs": ["b", "a", "c"], column: [2, "1", 3.0]}
        assert orders(tmp_path, row) == [[("a", 1), ("b", 2), ("c", 3)]]
        assert told_why(tmp_path, row | {column: [1, 2]}) == (
            f'"outputs" and "{column}" are not two lists of equal length'
        )
        assert 'the "rank" of answer 3 is x,' in told_why(tmp_path, row | {column: [1, 2, "x"]})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ours(("a", 0), ("b", "x")), 'the "rank" of reply 2 is x,'),
        (nectar(("a", 1), ("b", "x")), 'the "rank" of answer 2 is x,'),
        (
            {"prompt": "Q", "responses": [{"text": "a", "score": 1, "liked": False}]},
            'the key "liked" of answer 1 is not read',
        ),
        (
            {"prompt": "Q", "responses": [{"text": "a", "rank": 1, "liked": False}]},
            'the key "liked" of reply 1 is not read',
        ),
        (
            summary(0) | {"summaries": [{"text": "a"}]},
            '"summaries" holds 1 summaries, not two',
        ),
        (of_a_list("ratings", 4) | {"answers": [7]}, '"answers" holds a number, not a text'),
        (of_a_list("ratings", 4) | {"answers": ["a", "b"]}, "are not two lists of equal length"),
    ],
)
def test_the_answer_that_is_amiss_is_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    assert told in told_why(tmp_path, row)


def test_an_answer_that_is_deleted_or_without_a_rank_is_left_out_alone(tmp_path: Path) -> None:
    row = ours(("a", 0), ("b", 1), ("c", None), ("d", 3))
    row["responses"][3]["deleted"] = True
    assert orders(tmp_path, row) == [[("a", 0), ("b", 1)]]
    assert ranked(tmp_path, row).left_out == {"unranked": 1, "deleted": 1}


def test_responses_without_any_rating_are_not_rated(tmp_path: Path) -> None:
    """One object that lacks a rating: the row is read as one with ranks."""
    rated = [{"text": "a", "score": 1}, {"text": "b", "score": 2}]
    assert orders(tmp_path, {"prompt": "Q", "responses": rated}) == [[("b", 0), ("a", 1)]]
    assert orders(tmp_path, {"question": "Q", "candidates": rated}) == [[("b", 0), ("a", 1)]]
    mixed = {"prompt": "Q", "responses": [*rated, {"text": "c"}]}
    assert set(why_left_out(tmp_path, mixed)) == {"column_not_read"}


@pytest.mark.parametrize(
    ("info", "asked"),
    [
        ({"post": "P"}, "P"),
        ({"article": "A"}, "A"),
        ({"post": "P", "article": "A", "title": " "}, "P"),
        ({"post": " ", "article": "A", "title": "T"}, "T\n\nA"),
    ],
)
def test_what_is_to_be_summarized(tmp_path: Path, info: dict[str, str], asked: str) -> None:
    ((turns, _),) = told(tmp_path, axes(7) | {"info": info})
    assert turns == [("user", f"Summarize the following text.\n\n{asked}")]


def test_what_is_read_past_in_prometheus_is_known(tmp_path: Path) -> None:
    scale = {f"orig_score{n}_description": f"is {n}" for n in range(1, 6)}
    account = prompts(tmp_path, prometheus(3) | scale).account
    assert account.columns_unknown == {}
    assert set(scale) <= set(account.columns_passed_over)
