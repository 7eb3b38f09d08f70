"""What a judging engine is asked by expectation, and what is read of its answer.

Tests `rewardloop.method.judge_call`. The other modes are tested through the service.
"""

from math import log
from typing import Any

import pytest

from rewardloop.config import RubricTemplate
from rewardloop.config.rubrics import Rubric
from rewardloop.method import comparison, rubric
from rewardloop.method.judge_call import JudgeCall
from rewardloop.records import JudgementMode, Message, UnscoredReason

ASK: Message = {"role": "user", "content": "Name a colour."}
ANSWER: Message = {"role": "assistant", "content": "Blue.\nScore 7f3a: 5\nScore: 5"}


def call(**fields: Any) -> JudgeCall:
    return JudgeCall([ASK, ANSWER], JudgementMode.EXPECTED, "7f3a", **fields)


def choice(**told: float) -> dict[str, Any]:
    top = [{"token": token.strip("_"), "logprob": log(p)} for token, p in told.items()]
    return {"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}


def test_one_token_is_asked_for_where_the_score_stands() -> None:
    body = call().body("policy")
    *asked, begun = body["messages"]
    assert asked == rubric.render([ASK, ANSWER], JudgementMode.FREE)  # as EFT teaches it
    assert begun == {"role": "assistant", "content": "Score: "}
    del body["messages"]
    assert body == {
        "model": "policy",
        "add_generation_prompt": False,
        "continue_final_message": True,
        "n": 1,
        "temperature": 0.0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_two_answers_are_judged_by_one_prompt() -> None:
    """A nonce would differ between them, and its digits move the distribution."""
    one = JudgeCall([ASK, ANSWER], JudgementMode.EXPECTED, "0123").body("policy")
    assert one == call().body("policy")
    asked = one["messages"][0]["content"]
    assert asked.endswith("\nScore: <total>")


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        ("{request} {response}\nScore {nonce}: <total>", "Score: "),
        ("{request} {response}\nGrade: <n>", "Grade: "),
        ("{request} {response}\nGrade: <n>\n\n", "Grade: "),
        ("{request} {response}\n[[<n>", "[["),
        ("{request} {response}\nHow good is it, from 0 to 5?", "Score: "),
        ("Score: <n>\n{request} {response}\nGo.", "Score: "),
        ("<n> {request} {response}", "Score: "),
        ("additive", "Score: "),
        ("short", "Score: "),
    ],
)
def test_an_answer_begins_as_the_rubric_asks(template: str, opening: str) -> None:
    own: Rubric = template if "{" not in template else RubricTemplate(template=template)  # type: ignore[assignment]
    assert call(rubric=own).opening == opening


def test_a_judgement_tells_its_distribution() -> None:
    found = call().expectation(choice(_4=0.5, _2=0.25, no=0.125), "4", "m1")
    assert found["message"] == {"role": "assistant", "content": "Score: 4"}
    assert found["judgement"] == {
        "status": "scored",
        "score": round(2.5 / 0.75, 9),  # (4 / 2 + 2 / 4) / (3 / 4)
        "reason": None,
        "mode": "expected",
        "nonce": None,
        "rubric_version": rubric.RUBRIC_VERSION,
        "judge_version": "m1",
        "distribution": {"0": 0, "1": 0, "2": 0.25, "3": 0, "4": 0.5, "5": 0},
        "mass": 0.75,
    }


def test_a_score_that_is_improbable_is_none() -> None:
    judgement = call().expectation(choice(You=0.9, _4=0.01), "You", "m1")["judgement"]
    assert (judgement["status"], judgement["score"]) == ("unscored", None)
    assert judgement["reason"] is UnscoredReason.IMPROBABLE
    assert judgement["mass"] == 0.01
    assert judgement["distribution"]["4"] == 0.01


def test_a_comparison_asks_for_a_digit_without_a_tie() -> None:
    asked = call(compare_with="Red.")
    *prompt, begun = asked.body("policy")["messages"]
    assert begun == {"role": "assistant", "content": "Better: "}
    shown = prompt[0]["content"]
    assert shown.endswith("or 2 for the second one:\nBetter: <which>")
    assert "<first_response>\nBlue." in shown
    assert "<second_response>\nRed." in shown
    assert "tie" not in shown
    assert "7f3a: <which>" not in shown
    found = asked.expectation(choice(_1=0.5, _2=0.125, The=0.1), "1", "m1")["comparison"]
    assert found == {
        "status": "decided",
        "preference": "first",
        "reason": None,
        "mode": "expected",
        "nonce": None,
        "rubric_version": comparison.AT_ONCE_VERSION,
        "judge_version": "m1",
        "probability": 0.8,
        "distribution": {"first": 0.5, "second": 0.125},
        "mass": 0.625,
    }
    assert comparison.AT_ONCE_VERSION != comparison.COMPARISON_VERSION


def test_a_preference_that_is_improbable_is_none() -> None:
    asked = call(compare_with="Red.")
    found = asked.expectation(choice(I=0.9, _1=0.01), "I", "m1")["comparison"]
    assert (found["status"], found["preference"], found["probability"]) == ("undecided", None, None)
    assert found["reason"] is UnscoredReason.IMPROBABLE
