"""The judge's comparisons over a scripted engine."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rewardloop.errors import PromptTooLong
from rewardloop.method import comparison
from rewardloop.records import JudgementMode
from services.judge import app as judge_app
from tests.unit.judge.scripted_engine import (
    NONCE,
    REQUEST,
    RESPONSE,
    Engine,
    Judge,
    Serve,
    events,
    judging,
)

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
async def judge(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Judge]:
    monkeypatch.setattr(judge_app, "UPSTREAM_RETRY_SECONDS", 0.01)
    engine = Engine()
    async with judging(engine, await serve(engine), None) as judge:
        yield judge


ABOUT_COMPARISON = {
    "mode": "free",
    "nonce": NONCE,
    "rubric_version": comparison.COMPARISON_VERSION,
    "judge_version": "m1",
}


async def test_each_choice_carries_its_comparison(judge: Judge) -> None:
    judge.engine.texts = [
        *("Right.\nBetter 7f3a: first", "Better 7f3a: tie", "Better 7f3a: first\nBetter 7f3a: tie"),
        *("-", "Better: first"),
    ]
    answer = (await judge.judge(compare_with="Red.")).json()
    assert answer["model"] == "judge"
    assert [choice["comparison"] for choice in answer["choices"]] == [
        {"status": "decided", "preference": "first", "reason": None, **ABOUT_COMPARISON},
        {"status": "decided", "preference": "tie", "reason": None, **ABOUT_COMPARISON},
        {"status": "undecided", "preference": None, "reason": "conflicting", **ABOUT_COMPARISON},
        {"status": "undecided", "preference": None, "reason": "no_score", **ABOUT_COMPARISON},
        {"status": "undecided", "preference": None, "reason": "unsigned", **ABOUT_COMPARISON},
    ]
    assert all("judgement" not in choice for choice in answer["choices"])


async def test_the_last_turn_is_the_first_response_and_compare_with_the_second(
    judge: Judge,
) -> None:
    await judge.judge(compare_with="Red.")
    (asked,) = judge.engine.requests
    assert asked["messages"] == comparison.render(
        [{"role": "user", "content": "Name a colour."}],
        "Blue.\nScore: 5",
        "Red.",
        JudgementMode.FREE,
        NONCE,
    )
    assert asked["n"] == 1
    assert "structured_outputs" not in asked


async def test_an_empty_response_can_be_compared_with(judge: Judge) -> None:
    judge.engine.texts = ["Better 7f3a: first"]
    (choice,) = (await judge.judge(compare_with="")).json()["choices"]
    assert choice["comparison"]["preference"] == "first"


async def test_the_constrained_mode_forces_a_comparisons_form(judge: Judge) -> None:
    judge.engine.texts = ["Blue is a colour.\nBetter 7f3a: first"]
    answer = (await judge.judge(compare_with="Red.", judgement_mode="constrained")).json()
    (asked,) = judge.engine.requests
    assert asked["structured_outputs"] == {"regex": comparison.constrained_pattern(NONCE)}
    assert answer["choices"][0]["comparison"]["mode"] == "constrained"


async def test_a_cut_comparison_is_truncated(judge: Judge) -> None:
    judge.engine.texts, judge.engine.finish_reason = ["It is"], "length"
    (choice,) = (await judge.judge(compare_with="Red.")).json()["choices"]
    assert choice["comparison"]["reason"] == "truncated"


async def test_a_streamed_comparison_comes_with_the_last_chunk(judge: Judge) -> None:
    judge.engine.texts = ["Fine.\nBetter 7f3a: second", "Nothing."]
    choices = [chunk["choices"][0] for chunk in await events(judge, compare_with="Red.")]
    assert ["comparison" in choice for choice in choices] == [False, True, False, True]
    assert choices[1]["comparison"] == {
        "status": "decided",
        "preference": "second",
        "reason": None,
        **ABOUT_COMPARISON,
    }
    assert choices[3]["comparison"]["reason"] == "no_score"
    assert not any("judgement" in choice for choice in choices)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("messages", [[RESPONSE, REQUEST], [RESPONSE, RESPONSE]])
async def test_what_is_no_response_cannot_be_compared(
    judge: Judge, messages: list[dict[str, Any]], stream: bool
) -> None:
    answer = await judge.judge(*messages, compare_with="Red.", stream=stream)
    assert answer.status_code == 422
    assert "end in the assistant's response" in answer.json()["detail"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_error_passes_for_a_comparison_too(judge: Judge, stream: bool) -> None:
    judge.engine.error = (422, PromptTooLong("too long").openai())
    answer = await judge.judge(compare_with="Red.", stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "prompt-too-long")
