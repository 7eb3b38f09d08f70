"""What the generator's client asks, what it makes of answers, and which replica it asks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rewardloop import errors
from rewardloop.clients.completions import choices_of, share_out
from rewardloop.clients.generator import GeneratorClient
from rewardloop.config import Sampling, SelfInstruct
from rewardloop.embedded.process import free_port
from rewardloop.records import (
    Sample,
)
from tests.unit.clients.scripted import BUSY, HI, KEY, Script, Serve, completion

pytestmark = pytest.mark.usefixtures("no_waiting")


TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, you requested "
        "512 output tokens and your prompt contains at least 1537 input tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}


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
