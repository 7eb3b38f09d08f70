"""The calls of one prompt go to the replica that has its prefix, unless that is much busier."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rewardloop.clients.generator import FEW, GeneratorClient, Prefix
from rewardloop.config import Sampling
from rewardloop.records import Message
from tests.unit.clients.scripted import BUSY, KEY, Serve, completion

pytestmark = pytest.mark.usefixtures("no_waiting")
NUM_PROMPTS, NUM_AT_ONCE, NUM_ANSWERS = 40, 4, 2


class Replica:
    """Counts the prefixes that it sees."""

    def __init__(self) -> None:
        self.prefixes: list[str] = []
        self.is_dead = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, request: web.Request) -> web.Response:
        if self.is_dead:
            return web.json_response(BUSY[1], status=BUSY[0])
        self.prefixes.append((await request.json())["messages"][0]["content"].partition(":")[0])
        await self.may_answer.wait()
        return web.json_response(completion("a"))


def question(text: str) -> Message:
    return {"role": "user", "content": text}


@asynccontextmanager
async def two(serve: Serve) -> AsyncIterator[tuple[GeneratorClient, Replica, Replica]]:
    first, second = Replica(), Replica()
    async with GeneratorClient([await serve(first), await serve(second)], KEY) as client:
        yield client, first, second


async def ask(client: GeneratorClient, text: str, prefix: Prefix | None) -> None:
    await client.sample([question(text)], Sampling(), 1, prefix=prefix)


async def roll_out(client: GeneratorClient, *, prefixed: bool) -> None:
    """Each prompt's samples, and then the judgements of its answers at once."""
    places = asyncio.Semaphore(NUM_AT_ONCE)

    async def work(number: int) -> None:
        prefix = Prefix() if prefixed else None
        async with places:
            await ask(client, f"{number}", prefix)
            judging = (ask(client, f"{number}: {n}", prefix) for n in range(NUM_ANSWERS))
            await asyncio.gather(*judging)

    await asyncio.gather(*map(work, range(NUM_PROMPTS)))


async def test_each_prefix_is_computed_once(serve: Serve) -> None:
    async with two(serve) as (client, first, second):
        await roll_out(client, prefixed=True)
        assert len(set(first.prefixes)) + len(set(second.prefixes)) == NUM_PROMPTS
        assert min(len(first.prefixes), len(second.prefixes)) > NUM_PROMPTS / 4  # both work
    async with two(serve) as (client, first, second):
        await roll_out(client, prefixed=False)
        assert len(set(first.prefixes)) + len(set(second.prefixes)) > 1.2 * NUM_PROMPTS


async def test_a_replica_that_is_much_busier_loses_its_preference(serve: Serve) -> None:
    async with two(serve) as (client, first, second):
        await ask(client, "mine", prefix := Prefix())
        first.may_answer.clear()
        waiting = [asyncio.create_task(ask(client, f"mine: {n}", prefix)) for n in range(FEW + 1)]
        while len(first.prefixes) < 1 + FEW + 1:
            await asyncio.sleep(0.01)
        assert second.prefixes == []
        await ask(client, "mine: one more", prefix)
        assert second.prefixes == ["mine"]
        first.may_answer.set()
        await asyncio.gather(*waiting)


async def test_a_replica_that_fails_loses_its_preference_at_once(serve: Serve) -> None:
    async with two(serve) as (client, first, second):
        await ask(client, "mine", prefix := Prefix())
        first.is_dead = True
        await ask(client, "mine: 1", prefix)
        first.is_dead = False
        await ask(client, "mine: 2", prefix)
        assert (first.prefixes, second.prefixes) == (["mine"], ["mine", "mine"])
