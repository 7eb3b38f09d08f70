"""Retries, the translation of errors, and what is made of an answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rewardloop import errors
from rewardloop.clients.api import ApiClient
from rewardloop.clients.completions import choices_of, share_out
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.http import MAX_FAILED_TRIES, call, connect
from rewardloop.clients.judge import JudgeClient
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Judging, Sampling, SelfInstruct
from rewardloop.embedded.process import free_port
from rewardloop.method.comparison import COMPARISON_VERSION
from rewardloop.records import (
    JudgementMode,
    Message,
    Preference,
    PromptRecord,
    Sample,
    UnscoredReason,
    Verdict,
    WrittenComparison,
)

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "a-key-of-16-chars"
HI: Message = {"role": "user", "content": "Hi"}

pytestmark = pytest.mark.usefixtures("no_waiting")


class Script:
    """Gives the scripted answers in order, the last one for ever, and remembers the requests."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        body = await request.json() if request.can_read_body else dict(request.query)
        self.requests.append((request.method, request.path, body))
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            return web.Response(status=status, body=answer)
        return web.json_response(answer, status=status)


@asynccontextmanager
async def calling(serve: Serve, script: Script) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    async with connect(await serve(script), KEY, timeout_seconds=5) as client:

        async def get(retry_seconds: float = 0) -> Any:
            return await call(client, "GET", "/x", retry_seconds=retry_seconds)

        yield get


BUSY = (503, errors.UpstreamUnavailable("loading").problem())


async def test_a_busy_server_is_asked_again(serve: Serve) -> None:
    script = Script(BUSY, BUSY, (200, {"ok": True}))
    async with calling(serve, script) as get:
        assert await get(retry_seconds=5) == {"ok": True}
    assert len(script.requests) == 3


async def test_retries_end(serve: Serve) -> None:
    script = Script(BUSY)
    async with calling(serve, script) as get:
        with pytest.raises(errors.UpstreamUnavailable, match="loading"):
            await get(retry_seconds=1)
        assert len(script.requests) > 1
        script.requests.clear()
        with pytest.raises(errors.UpstreamUnavailable):
            await get()
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "no", "type": "BadRequestError"}}, errors.UpstreamRejected),
        (404, errors.NotFound("no").problem(), errors.NotFound),
        (409, errors.Conflict("no").openai(), errors.Conflict),
        (422, errors.PromptTooLong("no").openai(), errors.PromptTooLong),
        (502, errors.SwapFailed("no").openai(), errors.SwapFailed),
        (502, errors.UpstreamRejected("no").openai(), errors.UpstreamRejected),
    ],
)
async def test_a_refusal_is_final(
    serve: Serve, status: int, body: Any, expected: type[Exception]
) -> None:
    script = Script((status, body))
    async with calling(serve, script) as get:
        with pytest.raises(expected, match=r"^no$") as caught:
            await get(retry_seconds=5)
    assert type(caught.value) is expected
    assert len(script.requests) == 1


NO_MODEL = {"error": {"message": "The model `big` does not exist.", "type": "NotFoundError"}}


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, NO_MODEL, "model `big` does not exist"),
        (404, {"detail": "Not Found"}, "Not Found"),
        (307, b"", "307"),
        (200, b"<h1>Log in</h1>", "something else than JSON"),
    ],
)
async def test_a_server_that_is_not_the_wanted_one_is_named(
    serve: Serve, status: int, body: Any, told: str
) -> None:
    script = Script((status, body))
    async with calling(serve, script) as get:
        with pytest.raises(errors.UpstreamMismatch, match=told) as caught:
            await get(retry_seconds=5)
    assert "http://" in caught.value.message
    assert "address" in caught.value.message
    assert len(script.requests) == (MAX_FAILED_TRIES if status == 200 else 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_names_the_setting_and_the_address(serve: Serve, status: int) -> None:
    script = Script((status, {"detail": "go away"}))
    async with calling(serve, script) as get:
        told = r"GET http.*/x .*REWARDLOOP_API_KEY, .*credentials\.json"
        with pytest.raises(errors.Unauthorized, match=told):
            await get(retry_seconds=5)
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"", b"null", b'"busy"', b"[1]"])
async def test_a_proxys_error_is_transient_whatever_its_body(serve: Serve, body: bytes) -> None:
    async with calling(serve, Script((502, body))) as get:
        with pytest.raises(errors.UpstreamUnavailable):
            await get()


async def test_nobody_listens() -> None:
    port = free_port()
    async with connect(f"http://127.0.0.1:{port}", KEY, timeout_seconds=5) as client:
        with pytest.raises(errors.UpstreamUnavailable, match=f":{port}.* does not answer"):
            await call(client, "GET", "/x")


async def test_a_server_that_hangs_is_given_up(serve: Serve) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with connect(await serve(hang), KEY, timeout_seconds=0.05) as client:
        with pytest.raises(errors.UpstreamUnavailable, match="does not answer"):
            await call(client, "GET", "/x")
    release.set()


TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, you requested "
        "512 output tokens and your prompt contains at least 1537 input tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}


def completion(*texts: str, tokens: int = 10) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": tokens}
    return {"choices": choices[::-1], "usage": usage, "weight_version": "m1"}


async def test_samples(serve: Serve) -> None:
    script = Script((200, completion("a", "bbb", tokens=8)))
    async with GeneratorClient([await serve(script)], KEY) as client:
        samples = await client.sample([HI], Sampling(max_tokens=9), 2)
    assert samples == [Sample("a", 7, 2, "stop", "m1"), Sample("bbb", 7, 6, "stop", "m1")]
    asked = {"n": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 9}
    body = {"model": "policy", "messages": [HI], **asked}
    assert script.requests == [("POST", "/v1/chat/completions", body)]


@pytest.mark.parametrize("ids", [[1, 5, 2], None])
async def test_an_engine_is_asked_for_the_ids_of_a_prompt(serve: Serve, ids: Any) -> None:
    script = Script((200, {**completion("a"), "prompt_token_ids": ids}))
    async with GeneratorClient([await serve(script)], KEY) as client:
        assert await client.prompt_token_ids([HI]) == ids
    body = {"model": "policy", "messages": [HI], "max_tokens": 1, "return_token_ids": True}
    assert script.requests == [("POST", "/v1/chat/completions", body)]


async def test_an_engine_that_tells_no_ids_has_none(serve: Serve) -> None:
    async with GeneratorClient([await serve(Script((200, completion("a"))))], KEY) as client:
        assert await client.prompt_token_ids([HI]) is None


@pytest.mark.parametrize("ours", [True, False])
async def test_only_our_engine_is_told_that_a_text_is_plain(serve: Serve, ours: bool) -> None:
    """A foreign one may refuse a field that it does not know."""
    answer = {"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}
    script = Script((200, answer))
    async with GeneratorClient([await serve(script)], KEY, ours=ours) as client:
        assert await client.complete("a", SelfInstruct(), ["\n"]) == ("b", "stop")
    ((_, _, body),) = script.requests
    assert body.get("split_special_tokens") == (True if ours else None)


async def test_a_server_that_counts_no_tokens_is_read_all_the_same(serve: Serve) -> None:
    answer = {**completion("a", "bbb"), "usage": None}
    async with GeneratorClient([await serve(Script((200, answer)))], KEY) as client:
        samples = await client.sample([HI], Sampling(), 2)
    assert samples == [Sample("a", 0, 0, "stop", "m1"), Sample("bbb", 0, 0, "stop", "m1")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (completion("a", "b"), "asked for n=3 choices and gave 2"),
        (completion("a", "b", "c", "d"), "asked for n=3 choices and gave 4"),
        ({**completion(), "choices": None}, "OpenAI-compatible"),
        ({"detail": "fine"}, "OpenAI-compatible"),
        ([], "OpenAI-compatible"),
        ({"choices": [{"index": 0, "finish_reason": "stop"}]}, "OpenAI-compatible"),
    ],
)
def test_an_answer_without_the_choices_that_were_asked_for_is_named(answer: Any, told: str) -> None:
    with pytest.raises(errors.UpstreamMismatch, match=told) as caught:
        choices_of(answer, 3, "http://big:1")
    assert "http://big:1" in caught.value.message


async def test_a_generator_that_is_not_ours_is_named(serve: Serve) -> None:
    answer = completion("a")
    del answer["weight_version"]
    async with GeneratorClient([await serve(Script((200, answer)))], KEY) as client:
        with pytest.raises(errors.UpstreamMismatch, match="REWARDLOOP_GENERATOR_URLS"):
            await client.sample([HI], Sampling(), 1)


async def test_a_prompt_that_is_too_long_is_known_as_such(serve: Serve) -> None:
    script = Script((400, TOO_LONG))
    async with GeneratorClient([await serve(script)], KEY) as client:
        with pytest.raises(errors.PromptTooLong, match="2048 tokens"):
            await client.sample([HI], Sampling(), 4)
    assert len(script.requests) == 1


async def test_the_replica_with_the_fewest_requests_is_asked(serve: Serve) -> None:
    release, asked = asyncio.Event(), []

    def replica(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            asked.append(name)
            if name == "slow":
                await release.wait()
            return web.json_response(completion("a"))

        return answer

    urls = [await serve(replica("slow")), await serve(replica("fast"))]
    async with GeneratorClient(urls, KEY) as client:
        first = asyncio.create_task(client.sample([HI], Sampling(), 1))
        while not asked:
            await asyncio.sleep(0.001)
        await client.sample([HI], Sampling(), 1)
        await client.sample([HI], Sampling(), 1)
        release.set()
        await first
        await client.sample([HI], Sampling(), 1)
    assert asked == ["slow", "fast", "fast", "slow"]


async def test_a_replica_that_failed_is_not_counted_as_busy(serve: Serve) -> None:
    script = Script((400, TOO_LONG), (200, completion("a")))
    urls = [await serve(script), await serve(Script((200, completion("other"))))]
    async with GeneratorClient(urls, KEY) as client:
        with pytest.raises(errors.PromptTooLong):
            await client.sample([HI], Sampling(), 1)
        assert [s.text for s in await client.sample([HI], Sampling(), 1)] == ["a"]


async def test_a_dead_replica_holds_no_request_up(serve: Serve) -> None:
    living = Script((200, completion("a")))
    urls = [f"http://127.0.0.1:{free_port()}", await serve(living)]
    async with GeneratorClient(urls, KEY) as client:
        assert [s.text for s in await client.sample([HI], Sampling(), 1)] == ["a"]
    assert len(living.requests) == 1


async def test_a_replica_that_does_not_answer_is_left_alone_for_a_while(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.clients.breaker.REST_SECONDS", 600.0)
    busy, ready = Script(BUSY), Script((200, completion("a")))
    async with GeneratorClient([await serve(busy), await serve(ready)], KEY) as client:
        for _ in range(3):
            await client.sample([HI], Sampling(), 1)
        assert (len(busy.requests), len(ready.requests)) == (1, 3)
        client._servers[0].breaker.succeeded()  # the while is over
        busy.answers = [(200, completion("b"))]
        assert [s.text for s in await client.sample([HI], Sampling(), 1)] == ["b"]


async def test_replicas_that_all_fail_take_turns(serve: Serve) -> None:
    first, second = Script(BUSY, BUSY, (200, completion("a"))), Script(BUSY)
    async with GeneratorClient([await serve(first), await serve(second)], KEY) as client:
        await client.sample([HI], Sampling(), 1)
    assert (len(first.requests), len(second.requests)) == (3, 2)


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, [1, 1], [5, 5]),
        (8, [1, 3], [2, 6]),
        (7, [1, 1, 1], [2, 2, 3]),
        (5, [0, 0], [2, 3]),
        (0, [3, 4], [0, 0]),
        (9, [0, 5], [0, 9]),
    ],
)
def test_shares(total: int, weights: list[int], parts: list[int]) -> None:
    assert share_out(total, weights) == parts


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**4), min_size=1, max_size=64))
def test_shares_sum_up_and_are_fair(total: int, weights: list[int]) -> None:
    parts = share_out(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        fair = total * weight / whole if whole else total / len(weights)
        assert abs(part - fair) <= 1 + 1e-6


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


async def test_a_replica_is_asked_for_its_weights_and_for_a_swap(serve: Serve) -> None:
    script = Script((200, {"version": "m0"}), (200, {"version": "m1"}))
    async with ReplicaAdmin(await serve(script), KEY) as admin:
        assert await admin.weights() == {"version": "m0"}
        assert await admin.activate("m1") == {"version": "m1"}
    assert script.requests == [
        ("GET", "/admin/weights", {}),
        ("POST", "/admin/activate", {"version": "m1"}),
    ]


async def test_a_replica_is_told_what_postgres_knows_of_a_version(serve: Serve) -> None:
    script = Script((200, {"version": "m1"}), (200, {"version": "m2"}))
    async with ReplicaAdmin(await serve(script), KEY, {"m1": "abc", "m2": None}) as admin:
        await admin.activate("m1")
        await admin.activate("m2")
    assert script.requests == [
        ("POST", "/admin/activate", {"version": "m1", "manifest_sha256": "abc"}),
        ("POST", "/admin/activate", {"version": "m2"}),
    ]


async def test_a_failed_swap_is_not_tried_again(serve: Serve) -> None:
    script = Script(BUSY)
    async with ReplicaAdmin(await serve(script), KEY) as admin:
        with pytest.raises(errors.UpstreamUnavailable):
            await admin.activate("m1")
    assert len(script.requests) == 1


async def test_prompts_are_sent_in_chunks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.clients.api._PROMPTS_PER_REQUEST", 2)
    left_out = {"empty": {"count": 1, "first": "prompts.1", "detail": "x"}}
    script = Script(
        (200, {"added": 2, "known": 0, "left_out": left_out, "elsewhere": {"evaluation": 2}}),
        (200, {"added": 0, "known": 1, "left_out": left_out, "elsewhere": {"other": 1}}),
    )
    prompts = [PromptRecord((HI,), None, f"seed:{i}") for i in range(3)]
    async with ApiClient(await serve(script), KEY) as api:
        added = await api.add_prompts("my set", prompts)
    assert added == {
        "added": 2,
        "known": 1,
        "left_out": {"empty": {"count": 2, "first": "prompts.1", "detail": "x"}},
        "elsewhere": {"evaluation": 2, "other": 1},
    }
    assert [path for _, path, _ in script.requests] == ["/v1/datasets/my set/prompts"] * 2
    sent = [[row["source"] for row in body["prompts"]] for _, _, body in script.requests]
    assert sent == [["seed:0", "seed:1"], ["seed:2"]]


async def test_long_prompts_are_sent_in_smaller_chunks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request's body has a bound. One that passes it alone is sent alone, for the API to say."""
    monkeypatch.setattr("rewardloop.clients.api._BYTES_PER_REQUEST", 1000)
    script = Script((200, {"added": 1, "known": 0}))
    sizes = [300, 300, 300, 300, 5000, 10]
    prompts = [
        PromptRecord(({"role": "user", "content": "x" * size},), None, str(size)) for size in sizes
    ]
    async with ApiClient(await serve(script), KEY) as api:
        await api.add_prompts("mine", prompts)
    sent = [[row["source"] for row in body["prompts"]] for _, _, body in script.requests]
    assert sent == [["300", "300"], ["300", "300"], ["5000"], ["10"]]


async def test_pairs_are_read_page_by_page(serve: Serve) -> None:
    pages = [{"items": [{"id": 1}, {"id": 2}], "next_after": 2}, {"items": [], "next_after": None}]
    script = Script(*((200, page) for page in pages))
    async with ApiClient(await serve(script), KEY) as api:
        assert [pair async for pair in api.pairs("r")] == [{"id": 1}, {"id": 2}]
    assert [query["after"] for _, _, query in script.requests] == ["0", "2"]


async def test_creating_is_never_tried_twice(serve: Serve) -> None:
    """A POST that creates may have worked although its answer was lost."""
    script = Script(BUSY)
    async with ApiClient(await serve(script), KEY) as api:
        with pytest.raises(errors.UpstreamUnavailable):
            await api.post("/v1/runs", json.loads("{}"))
    assert len(script.requests) == 1
