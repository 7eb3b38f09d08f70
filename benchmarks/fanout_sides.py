"""The two sides of the fan-out benchmark, each run as a process of its own.

python -m benchmarks.fanout_sides bare PROMPTS.json OUT.json
python -m benchmarks.fanout_sides worker ITERATION_ID OUT.json [--profile FILE]
"""

import argparse
import asyncio
import cProfile
import gc
import json
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import uvloop
from sqlalchemy import text

from rewardloop import telemetry
from rewardloop.config import Settings, load_settings
from rewardloop.method import rubric
from rewardloop.method.nonce import nonce_of
from rewardloop.queue import make_app
from rewardloop.records import JudgementMode, Message
from rewardloop.store import Store, rollouts
from services.worker import rollout

MAX_CALLS = 2048
LAG_SECONDS = 0.01
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLING = {"n": 4, "temperature": 0.7, "top_p": 0.9, "max_tokens": 512}
JUDGING = {"n": 3, "temperature": 0.7, "top_p": 0.9, "max_tokens": 512}


class Bare:
    """The best client we can write: no store, no service between, one connection pool."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._free = asyncio.Semaphore(MAX_CALLS)

    async def prompt(self, messages: list[Message]) -> None:
        answer = await self._post({"model": "policy", "messages": messages, **SAMPLING})
        texts = [choice["message"]["content"] for choice in answer["choices"]]
        await asyncio.gather(*(self._judge(messages, found) for found in texts))

    async def _judge(self, messages: list[Message], answer: str) -> None:
        turn: Message = {"role": "assistant", "content": answer}
        nonce = nonce_of(None)
        body = {
            "model": "policy",
            "messages": rubric.render([*messages, turn], JudgementMode.CONSTRAINED, nonce=nonce),
            "structured_outputs": {"regex": rubric.constrained_pattern(nonce)},
            **JUDGING,
        }
        judged = await self._post(body)
        assert len(judged["choices"]) == JUDGING["n"]

    async def _post(self, body: dict[str, Any]) -> Any:
        async with (
            self._free,
            self._session.post("/v1/chat/completions", json=body) as answer,
        ):
            answer.raise_for_status()
            return await answer.json()


async def bare(settings: Settings, prompts: list[list[Message]]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    async with aiohttp.ClientSession(
        settings.generator_urls[0],
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        client = Bare(session)
        started = time.monotonic()
        async with _watched() as seen:
            await asyncio.gather(*(client.prompt(messages) for messages in prompts))
        return {"seconds": round(time.monotonic() - started, 2), **_found(seen)}


async def worker(settings: Settings, iteration_id: UUID) -> dict[str, Any]:
    """Roll-out tasks, one after the other, until the iteration is complete."""
    store = Store(settings.database_url.get_secret_value())
    app = make_app(settings)
    started = time.monotonic()
    async with _watched() as seen:
        while not await _is_complete(store, iteration_id):
            await rollout.run(store, app, settings, iteration_id)
    seconds = round(time.monotonic() - started, 2)
    async with store.transaction() as session:
        num = await session.scalar(
            text(
                "SELECT count(*) FROM judgements j JOIN responses r ON r.id = j.response_id"
                " WHERE r.iteration_id = :id"
            ),
            {"id": iteration_id},
        )
    await store.close()
    return {"seconds": seconds, "judgements": num, **_found(seen)}


def _found(seen: dict[str, list[float]]) -> dict[str, Any]:
    lags = sorted(seen["lags"])
    return {
        "lag_p99_ms": round(1000 * lags[int(0.99 * len(lags))], 1),
        "mb": _quarters(seen["mb"]),
    }


async def _is_complete(store: Store, iteration_id: UUID) -> bool:
    async with store.transaction() as session:
        return await rollouts.is_complete(session, iteration_id)


@asynccontextmanager
async def _watched() -> AsyncIterator[dict[str, list[float]]]:
    """How late the event loop is, and the process's memory, while the block runs."""
    seen: dict[str, list[float]] = {"lags": [0.0], "mb": [_resident_mb()]}
    watcher = asyncio.create_task(_watch(seen))
    try:
        yield seen
    finally:
        watcher.cancel()


async def _watch(seen: dict[str, list[float]]) -> None:
    while True:
        asked = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)
        seen["lags"].append(max(0.0, time.monotonic() - asked - LAG_SECONDS))
        if len(seen["lags"]) % 50 == 0:
            seen["mb"].append(_resident_mb())


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 2**20


def _quarters(megabytes: list[float]) -> list[int]:
    """At the start, and after each quarter of the time."""
    last = len(megabytes) - 1
    return [round(megabytes[last * quarter // 4]) for quarter in range(5)]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=["bare", "worker"])
    parser.add_argument("subject", help="a file of prompts, or an iteration's id")
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    telemetry.log_json()
    settings = load_settings("worker")
    if options.side == "bare":
        work = bare(settings, json.loads(Path(options.subject).read_text()))
    else:
        work = worker(settings, UUID(options.subject))
    gc.collect()
    before = _cpu_seconds()
    profiler = cProfile.Profile() if options.profile else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if profiler:
            profiler.enable()
        found = runner.run(work)
        if profiler:
            profiler.disable()
            profiler.dump_stats(options.profile)
    found["cpu"] = round(_cpu_seconds() - before, 2)
    part = options.out.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(options.out)


if __name__ == "__main__":
    main()
