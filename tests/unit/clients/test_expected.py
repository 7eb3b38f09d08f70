"""What a client asks of a judge by expectation, and what it makes of the answer.

Tests `rewardloop.clients.judge`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging
from rewardloop.records import JudgementMode, Message, Preference, UnscoredReason, Verdict

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "a-key-of-16-chars"
HI: Message = {"role": "user", "content": "Hi"}
POINTS = {"0": 0.0, "1": 0.0, "2": 0.25, "3": 0.0, "4": 0.5, "5": 0.0}

pytestmark = pytest.mark.usefixtures("no_waiting")


class ScriptedJudge:
    def __init__(self, **gained: Any) -> None:
        self.gained = gained
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        message = {"role": "assistant", "content": "Score: 4"}
        about = {"mode": "expected", "nonce": None, "rubric_version": "r", "judge_version": "m1"}
        gained = {name: {**about, **found} for name, found in self.gained.items()}
        usage = {"prompt_tokens": 60, "completion_tokens": 1}
        choice = {"index": 0, "message": message, **gained}
        return web.json_response({"choices": [choice], "usage": usage})


async def test_a_judgement_by_expectation_keeps_its_distribution(serve: Serve) -> None:
    judgement = {"status": "scored", "score": 3.333333333, "reason": None, "distribution": POINTS}
    script = ScriptedJudge(judgement=judgement)
    async with JudgeClient(await serve(script), KEY) as judge:
        (found,) = await judge.judge([HI], "Ho", Judging(mode=JudgementMode.EXPECTED), 1)
    assert found.verdict == Verdict(3.333333333, None)
    assert (found.distribution, found.mode, found.nonce) == (POINTS, "expected", None)
    assert (found.prompt_tokens, found.completion_tokens) == (60, 1)
    (asked,) = script.requests
    assert (asked["n"], asked["judgement_mode"]) == (1, "expected")


async def test_an_improbable_score_is_not_asked_for_again(serve: Serve) -> None:
    """The same probabilities would come again."""
    judgement = {"status": "unscored", "score": None, "reason": "improbable"}
    script = ScriptedJudge(judgement=judgement)
    how = Judging(mode=JudgementMode.EXPECTED, max_reasks=3)
    async with JudgeClient(await serve(script), KEY) as judge:
        (found,) = await judge.judge([HI], "Ho", how, 1)
    assert found.verdict == Verdict(None, UnscoredReason.IMPROBABLE)
    assert found.unscored_before == ()
    assert len(script.requests) == 1


async def test_a_comparison_by_expectation_keeps_its_probability(serve: Serve) -> None:
    shares = {"first": 0.75, "second": 0.25, "tie": 0.0}
    comparison = {
        "status": "decided",
        "preference": "first",
        "probability": 0.75,
        "distribution": shares,
    }
    async with JudgeClient(await serve(ScriptedJudge(comparison=comparison)), KEY) as judge:
        found = await judge.compare([HI], "Ho", "Hm", mode=JudgementMode.EXPECTED, max_tokens=8)
    assert (found.preference, found.probability) == (Preference.FIRST, 0.75)
    assert found.distribution == shares
