"""What the judge's client makes of judgements and comparisons, and of a judge that refuses."""

from typing import Any

import pytest

from rewardloop import errors
from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging
from rewardloop.method.comparison import COMPARISON_VERSION
from rewardloop.records import (
    JudgementMode,
    Preference,
    UnscoredReason,
    Verdict,
    WrittenComparison,
)
from tests.unit.clients.scripted import BUSY, HI, KEY, Script, Serve, completion

pytestmark = pytest.mark.usefixtures("no_waiting")

SCORED = {
    "status": "scored",
    "score": 4,
    "reason": None,
    "mode": "constrained",
    "nonce": "7f3a",
    "rubric_version": "r1",
    "judge_version": "m1",
}
COMPARE: dict[str, Any] = {"mode": JudgementMode.FREE, "max_tokens": 64}
UNSCORED = {**SCORED, "status": "unscored", "score": None, "reason": "truncated"}


async def test_judgements(serve: Serve) -> None:
    answer = completion("Score: 4", "Well", tokens=6)
    answer["choices"][1]["judgement"] = SCORED
    answer["choices"][0]["judgement"] = UNSCORED
    script = Script((200, answer))
    async with JudgeClient(await serve(script), KEY) as client:
        judging = Judging(mode=JudgementMode.CONSTRAINED, max_tokens=48, max_reasks=0)
        first, second = await client.judge([HI], "Hello", judging, 2)
    assert (first.raw_text, first.verdict) == ("Score: 4", Verdict(4.0, None))
    assert (second.raw_text, second.verdict) == ("Well", Verdict(None, UnscoredReason.TRUNCATED))
    assert (first.completion_tokens, second.completion_tokens) == (4, 2)
    assert (first.rubric_version, first.judge_version, first.mode) == ("r1", "m1", "constrained")
    assert (first.nonce, first.unscored_before, second.unscored_before) == ("7f3a", (), ())
    ((_, _, asked),) = script.requests
    assert asked == {
        "model": "judge",
        "messages": [HI, {"role": "assistant", "content": "Hello"}],
        "n": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 48,
        "judgement_mode": "constrained",
    }


@pytest.mark.parametrize(
    "error",
    [
        errors.PromptTooLong("too long"),
        errors.UpstreamRejected("too long"),
        errors.TooLarge("too long"),
    ],
)
async def test_what_the_judge_refuses_is_settled_without_a_score(
    serve: Serve, error: errors.RewardloopError
) -> None:
    async with JudgeClient(await serve(Script((error.status, error.openai()))), KEY) as client:
        found = await client.judge([HI], "Hello", Judging(), 3)
    assert [j.verdict for j in found] == [Verdict(None, UnscoredReason.REFUSED)] * 3
    assert (found[0].raw_text, found[0].nonce) == ("too long", None)


@pytest.mark.parametrize("error", [errors.Unauthorized("key"), errors.UpstreamMismatch("no model")])
async def test_a_wrong_setting_is_not_a_judgement(
    serve: Serve, error: errors.RewardloopError
) -> None:
    async with JudgeClient(await serve(Script((error.status, error.openai()))), KEY) as client:
        with pytest.raises(type(error)):
            await client.judge([HI], "Hello", Judging(), 3)


@pytest.mark.parametrize("judgement", [None, {}, {**SCORED, "status": "unscored", "reason": "?"}])
async def test_an_engine_in_the_judges_place_is_named(serve: Serve, judgement: Any) -> None:
    answer = completion("Score: 4")
    answer["choices"][0] |= {} if judgement is None else {"judgement": judgement}
    async with JudgeClient(await serve(Script((200, answer))), KEY) as client:
        with pytest.raises(errors.UpstreamMismatch, match="REWARDLOOP_JUDGE_URL"):
            await client.judge([HI], "Hello", Judging(), 1)
        with pytest.raises(errors.UpstreamMismatch, match="REWARDLOOP_JUDGE_URL"):
            await client.compare([HI], "Hello", "Hey", **COMPARE)


async def test_a_judge_that_gives_fewer_judgements_is_named(serve: Serve) -> None:
    answer = completion("Score: 4")
    answer["choices"][0]["judgement"] = SCORED
    async with JudgeClient(await serve(Script((200, answer))), KEY) as client:
        with pytest.raises(errors.UpstreamMismatch, match="n=3"):
            await client.judge([HI], "Hello", Judging(), 3)


async def test_judgements_of_a_judge_that_counts_no_tokens(serve: Serve) -> None:
    answer = completion("Score: 4")
    answer["choices"][0]["judgement"] = SCORED
    del answer["usage"]
    async with JudgeClient(await serve(Script((200, answer))), KEY) as client:
        (written,) = await client.judge([HI], "Hello", Judging(), 1)
    assert (written.verdict, written.completion_tokens) == (Verdict(4.0, None), 0)


async def test_a_judge_that_is_down_is_an_error_and_never_a_score(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.clients.judge.RETRY_SECONDS", 0.01)
    async with JudgeClient(await serve(Script(BUSY)), KEY) as client:
        with pytest.raises(errors.UpstreamUnavailable):
            await client.judge([HI], "Hello", Judging(), 3)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"status": "decided", "preference": "second", "reason": None}, (Preference.SECOND, None)),
        (
            {"status": "undecided", "preference": None, "reason": "truncated"},
            (None, UnscoredReason.TRUNCATED),
        ),
    ],
)
async def test_a_comparison(
    serve: Serve,
    found: dict[str, Any],
    expected: tuple[Preference | None, UnscoredReason | None],
) -> None:
    answer = completion("As it is.")
    about = {"mode": "constrained", "nonce": "7f3a", "rubric_version": "r1", "judge_version": "m1"}
    answer["choices"][0]["comparison"] = {**found, **about}
    script = Script((200, answer))
    async with JudgeClient(await serve(script), KEY) as client:
        written = await client.compare(
            [HI], "Hello", "Hey", mode=JudgementMode.CONSTRAINED, max_tokens=48, temperature=0.3
        )
    assert written == WrittenComparison("As it is.", *expected, "r1", "m1", "7f3a")
    ((_, _, asked),) = script.requests
    assert asked == {
        "model": "judge",
        "messages": [HI, {"role": "assistant", "content": "Hello"}],
        "compare_with": "Hey",
        "n": 1,
        "temperature": 0.3,
        "max_tokens": 48,
        "judgement_mode": "constrained",
    }


async def test_a_comparison_is_greedy_unless_told_otherwise(serve: Serve) -> None:
    script = Script((422, errors.PromptTooLong("too long").openai()))
    async with JudgeClient(await serve(script), KEY) as client:
        await client.compare([HI], "Hello", "Hey", **COMPARE)
    assert script.requests[0][2]["temperature"] == 0


@pytest.mark.parametrize(
    "error",
    [
        errors.PromptTooLong("too long"),
        errors.UpstreamRejected("too long"),
        errors.TooLarge("too long"),
    ],
)
async def test_what_the_judge_refuses_to_compare_is_settled_without_a_preference(
    serve: Serve, error: errors.RewardloopError
) -> None:
    async with JudgeClient(await serve(Script((error.status, error.openai()))), KEY) as client:
        found = await client.compare([HI], "Hello", "Hey", **COMPARE)
    refused = (None, UnscoredReason.REFUSED, COMPARISON_VERSION, "none", None)
    assert found == WrittenComparison("too long", *refused)


@pytest.mark.parametrize("error", [errors.Unauthorized("key"), errors.UpstreamUnavailable("down")])
async def test_a_judge_that_cannot_be_asked_is_never_a_preference(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: errors.RewardloopError
) -> None:
    monkeypatch.setattr("rewardloop.clients.judge.RETRY_SECONDS", 0.01)
    async with JudgeClient(await serve(Script((error.status, error.openai()))), KEY) as client:
        with pytest.raises(type(error)):
            await client.compare([HI], "Hello", "Hey", **COMPARE)
