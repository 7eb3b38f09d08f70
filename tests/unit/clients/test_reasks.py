"""Judgements without a score are asked for again. Tests `rewardloop.clients.judge`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from rewardloop import errors
from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging
from rewardloop.records import Message, UnscoredReason, Verdict, WrittenJudgement

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "a-key-of-16-chars"
HI: Message = {"role": "user", "content": "Hi"}
UNSIGNED, NO_SCORE = UnscoredReason.UNSIGNED, UnscoredReason.NO_SCORE
TRUNCATED, REFUSED = UnscoredReason.TRUNCATED, UnscoredReason.REFUSED

pytestmark = pytest.mark.usefixtures("no_waiting")

Outcome = int | UnscoredReason


@dataclass
class ScriptedJudge:
    """Gives the judgements of each request in turn. Each takes 7 prompt tokens and 10 others."""

    answers: list[list[Outcome] | errors.RewardloopError]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("x-request-key"))
        answer = self.answers[len(self.requests) - 1]
        if isinstance(answer, errors.RewardloopError):
            return web.json_response(answer.openai(), status=answer.status)
        choices = [self._choice(index, outcome) for index, outcome in enumerate(answer)]
        usage = {"prompt_tokens": 7, "completion_tokens": 10 * len(answer)}
        return web.json_response({"choices": choices, "usage": usage})

    def _choice(self, index: int, outcome: Outcome) -> dict[str, Any]:
        scored = isinstance(outcome, int)
        number = len(self.requests)
        return {
            "index": index,
            "message": {"content": f"ask {number}, choice {index}"},
            "finish_reason": "stop",
            "judgement": {
                "status": "scored" if scored else "unscored",
                "score": outcome if scored else None,
                "reason": None if scored else outcome,
                "mode": "free",
                "nonce": f"000{number}",
                "rubric_version": "r1",
                "judge_version": "m1",
            },
        }


async def judged(
    serve: Serve,
    *answers: list[Outcome] | errors.RewardloopError,
    count: int = 3,
    key: str | None = "k",
    **judging: Any,
) -> tuple[list[WrittenJudgement], ScriptedJudge]:
    judge = ScriptedJudge(list(answers))
    async with JudgeClient(await serve(judge), KEY) as client:
        written = await client.judge([HI], "Hello", Judging(**judging), count, key=key)
    assert len(judge.requests) == len(answers), "not as many requests as scripted"
    return written, judge


async def test_only_what_has_no_score_is_asked_for_again(serve: Serve) -> None:
    written, judge = await judged(serve, [NO_SCORE, 4, UNSIGNED], [2, 3])
    assert [w.verdict for w in written] == [Verdict(2, None), Verdict(4, None), Verdict(3, None)]
    texts = ["ask 2, choice 0", "ask 1, choice 1", "ask 2, choice 1"]
    assert [w.raw_text for w in written] == texts
    assert [w.nonce for w in written] == ["0002", "0001", "0002"]
    assert [w.unscored_before for w in written] == [(NO_SCORE,), (), (UNSIGNED,)]
    first, again = judge.requests
    assert (first["n"], again["n"]) == (3, 2)
    assert again == {**first, "n": 2}


async def test_tokens_are_those_of_all_that_was_written(serve: Serve) -> None:
    written, _ = await judged(serve, [NO_SCORE, 4], [2], count=2)
    assert [w.prompt_tokens for w in written] == [14, 7]
    assert [w.completion_tokens for w in written] == [20, 10]


async def test_all_that_have_a_score_are_not_asked_for_again(serve: Serve) -> None:
    written, _ = await judged(serve, [0, 4, 5])
    assert [w.verdict.score for w in written] == [0, 4, 5]


async def test_what_has_no_score_at_last_says_why(serve: Serve) -> None:
    written, _ = await judged(serve, [NO_SCORE, 4], [TRUNCATED], count=2)
    assert written[0].verdict == Verdict(None, TRUNCATED)
    assert written[0].unscored_before == (NO_SCORE,)
    assert written[0].raw_text == "ask 2, choice 0"


async def test_it_is_asked_at_most_so_often(serve: Serve) -> None:
    written, judge = await judged(
        serve, [NO_SCORE, UNSIGNED, 4], [UNSIGNED, 3], [TRUNCATED], [NO_SCORE], max_reasks=3
    )
    assert [w.verdict.score for w in written] == [None, 3, 4]
    assert written[0].unscored_before == (NO_SCORE, UNSIGNED, TRUNCATED)
    assert (written[0].prompt_tokens, written[0].completion_tokens) == (28, 40)
    assert [request["n"] for request in judge.requests] == [3, 2, 1, 1]


async def test_nobody_is_asked_again_where_that_is_not_wanted(serve: Serve) -> None:
    written, _ = await judged(serve, [NO_SCORE, 4], count=2, max_reasks=0)
    assert [w.verdict.score for w in written] == [None, 4]
    assert [w.unscored_before for w in written] == [(), ()]


async def test_once_is_the_default(serve: Serve) -> None:
    assert Judging().max_reasks == 1
    await judged(serve, [NO_SCORE], [NO_SCORE], count=1)


async def test_each_ask_has_a_key_of_its_own(serve: Serve) -> None:
    """Under the same one the judge would give the same answer, kept by key."""
    vain: list[Outcome] = [NO_SCORE, NO_SCORE]
    _, judge = await judged(serve, vain, vain, vain, count=2, max_reasks=2)
    assert None not in judge.keys
    assert len(set(judge.keys)) == 3


async def test_who_asks_the_same_again_names_the_same_keys(serve: Serve) -> None:
    """So that a worker that died pays for no judgement twice."""
    _, first = await judged(serve, [NO_SCORE, 4], [3], count=2)
    _, second = await judged(serve, [NO_SCORE, 4], [3], count=2)
    assert first.keys == second.keys
    _, other = await judged(serve, [4, NO_SCORE], [3], count=2)
    assert first.keys[0] == other.keys[0]
    assert first.keys[1] != other.keys[1]


async def test_without_a_key_no_ask_has_one(serve: Serve) -> None:
    _, judge = await judged(serve, [NO_SCORE], [NO_SCORE], count=1, key=None)
    assert judge.keys == [None, None]


async def test_a_refused_judgement_is_not_asked_for_again(serve: Serve) -> None:
    written, _ = await judged(serve, errors.PromptTooLong("too long"), max_reasks=5)
    assert [w.verdict for w in written] == [Verdict(None, REFUSED)] * 3
    assert [w.unscored_before for w in written] == [()] * 3
    assert {w.nonce for w in written} == {None}


async def test_what_is_refused_when_asked_again_ends_there(serve: Serve) -> None:
    written, _ = await judged(
        serve, [NO_SCORE, 4], errors.UpstreamRejected("no"), count=2, max_reasks=3
    )
    assert [w.verdict for w in written] == [Verdict(None, REFUSED), Verdict(4, None)]
    assert written[0].unscored_before == (NO_SCORE,)
    assert (written[0].prompt_tokens, written[0].completion_tokens) == (7, 10)


async def test_a_judge_that_is_down_when_asked_again_is_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.clients.judge.RETRY_SECONDS", 0)
    down = errors.UpstreamUnavailable("down")
    with pytest.raises(errors.UpstreamUnavailable, match="down"):
        await judged(serve, [NO_SCORE], down, count=1)
