"""A client of generators whose replicas come and go."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from rewardloop.clients.generator import GeneratorClient
from rewardloop.config import Sampling
from rewardloop.errors import UpstreamUnavailable

KEY = "a-key-of-16-chars"
HI = [{"role": "user", "content": "Hi"}]

pytestmark = pytest.mark.usefixtures("no_waiting")


class Replica:
    """Answers with its version once it may, and counts."""

    def __init__(self, version: str = "m1") -> None:
        self.version = version
        self.num_asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, request: web.Request) -> web.Response:
        self.num_asked += 1
        await self.may_answer.wait()
        choice = {"index": 0, "message": {"content": self.version}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"choices": [choice], "usage": usage, "weight_version": self.version}
        return web.json_response(answer)


async def ask(client: GeneratorClient) -> str:
    (sample,) = await client.sample(HI, Sampling(), 1)  # type: ignore[arg-type]
    return sample.weight_version


async def test_a_replica_that_joins_is_asked_and_one_that_leaves_is_not(serve: Any) -> None:
    first, second = Replica(), Replica()
    urls = [await serve(first), await serve(second)]
    async with GeneratorClient(urls[:1], KEY) as client:
        first.may_answer.clear()
        running = asyncio.create_task(ask(client))
        while not first.num_asked:
            await asyncio.sleep(0.01)
        client.follow(urls)
        await ask(client)
        assert (first.num_asked, second.num_asked) == (1, 1)
        client.follow(urls[1:])
        await ask(client)
        assert (first.num_asked, second.num_asked) == (1, 2)
        first.may_answer.set()
        assert await running == "m1"  # what was asked before it left goes on


async def test_a_replica_that_stays_keeps_what_is_known_of_it(serve: Any) -> None:
    url = await serve(Replica())
    async with GeneratorClient([url], KEY) as client:
        before = client._servers[0]
        client.follow([url, "http://another"])
        assert client._servers[0] is before
        client.follow([url])
        assert client._servers == [before]


async def test_an_answer_of_other_weights_is_not_taken(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.clients.generator.RETRY_SECONDS", 0.05)
    url = await serve(replica := Replica("m0"))
    async with GeneratorClient([url], KEY) as client:
        client.version = "m1"
        with pytest.raises(UpstreamUnavailable, match=f"{url} answered with m0 where m1 was"):
            await ask(client)
        replica.version = "m1"
        assert await ask(client) == "m1"
