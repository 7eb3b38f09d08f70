"""The stub's probabilities where a verdict stands: a judge by expectation reads them.

Tests `services.generator.stub_logprobs`.
"""

from typing import Any

import pytest

from rewardloop.method.expectation import Distribution, expected_score, points_of, preferences_of
from rewardloop.method.judge_call import JudgeCall
from rewardloop.records import JudgementMode
from services.generator.stub_faults import Faults
from services.generator.stub_logprobs import NextToken, next_token

FOLDER = "m1"


def call(response: str = "Blue.", nonce: str = "7f3a", **fields: Any) -> JudgeCall:
    turns: Any = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": response},
    ]
    return JudgeCall(turns, JudgementMode.EXPECTED, nonce, **fields)


def told(asked: JudgeCall, version: str = FOLDER, **faults: Any) -> NextToken | None:
    body = asked.body("policy")
    return next_token(body, body["messages"][0]["content"], version, Faults(**faults))


def choice(asked: JudgeCall, version: str = FOLDER, **faults: Any) -> dict[str, Any]:
    found = told(asked, version, **faults)
    assert found is not None
    return {"logprobs": found.logprobs()}


def points(asked: JudgeCall, version: str = FOLDER, **faults: Any) -> Distribution:
    return points_of(choice(asked, version, **faults))


def test_every_score_has_a_share_and_something_else_the_rest() -> None:
    found = points(call())
    assert found.mass == pytest.approx(0.95)
    assert all(p > 0 for p in found.probabilities)


def test_answers_and_versions_differ_and_the_same_repeats() -> None:
    scores = {expected_score(points(call(f"answer {n}"))) for n in range(50)}
    assert len(scores) == 50
    assert points(call()) == points(call(nonce="0b1e")) == points(call())
    assert points(call()) != points(call(), "m2")


def test_the_most_probable_token_is_the_one_that_it_writes() -> None:
    found = told(call())
    assert found is not None
    assert found.probabilities[found.text] == max(found.probabilities.values())
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_faults() -> None:
    assert expected_score(points(call(), fixed_score=2)) == 2
    assert not points(call(), unscored_rate=1.0).is_enough
    unscored = [not points(call(f"{n}"), unscored_rate=0.5).is_enough for n in range(60)]
    assert 15 < sum(unscored) < 45
    assert told(call(), tells_no_logprobs=True) is None


def test_preferences_have_shares_too() -> None:
    found = preferences_of(choice(call(compare_with="Red.")))
    assert found.mass == pytest.approx(0.95)


@pytest.mark.parametrize(
    "without", ["logprobs", "max_tokens", "continue_final_message", "add_generation_prompt"]
)
def test_other_requests_ask_for_no_next_token(without: str) -> None:
    body = call().body("policy")
    prompt = body["messages"][0]["content"]
    assert next_token(body, prompt, FOLDER, Faults()) is not None
    del body[without]
    assert next_token(body, prompt, FOLDER, Faults()) is None


def test_a_prompt_that_asks_for_no_verdict_has_none() -> None:
    assert next_token(call().body("policy"), "Name a colour.", FOLDER, Faults()) is None
