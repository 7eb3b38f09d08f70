"""Swaps in a row on real vLLM while requests run: `python -m tests.security.swaps [--swaps 50]`.

First a swap meets answers that would take far longer than it waits. Then three versions take
turns, brought in as the controller does it. Clients ask all the time, streamed and whole. Each
version writes tokens that no other writes (see `stepping_model`), so every token of every
answer shows its weights. Prints one JSON object.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rewardloop.store import versions
from services.worker.swap import bring_to
from tests.security import stepping_model
from tests.security.real_replica import START_SECONDS, Replica, replica

STEPS = {"one": 1, "two": 2, "three": 3}
NUM_CLIENTS = 6
NUM_TOKENS = 48
DRAIN_SECONDS = 15
"""Short answers need no second each; long ones minutes."""
PAUSE_SECONDS = 0.5
"""Between two swaps, so that answers begin and end under each version."""


@dataclass
class Seen:
    """What the clients were answered."""

    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    mixed: int = 0
    mislabelled: int = 0

    def add(self, labels: set[str], tokens: list[int]) -> None:
        steps = stepping_model.steps_of(tokens)
        self.answers.update(labels)
        if len(steps) != 1 or len(labels) != 1:
            self.mixed += 1
        elif steps != {STEPS.get(next(iter(labels)))}:
            self.mislabelled += 1


async def end_long_answers(served: Replica) -> int:
    """How many of two answers a swap ended as it should: with an error, and never cut off."""
    async with served.client() as client:
        whole, streamed = (
            asyncio.create_task(ask_for_much(client, stream=stream)) for stream in (False, True)
        )
        while "rewardloop_requests_in_flight 2.0" not in (await client.get("/metrics")).text:
            for answer in (whole, streamed):
                assert not answer.done(), f"too short: {answer.result().text[-1000:]}"
            await asyncio.sleep(0.1)
        await bring_to(served.store, served.settings, "three")
        refused, text = await whole, (await streamed).text
    *_, last, nothing = text.split("\n\n")
    told = '"type": "upstream-unavailable"' in last and not nothing
    return (refused.status_code == 503) + (told and "[DONE]" not in text)


async def ask_for_much(client: httpx.AsyncClient, *, stream: bool) -> httpx.Response:
    request = {
        "model": "policy",
        "messages": [{"role": "user", "content": "Count"}],
        "max_tokens": stepping_model.MAX_TOKENS - 500,
        "temperature": 0,
        "stream": stream,
    }
    return await client.post("/v1/chat/completions", json=request)


async def ask(client: httpx.AsyncClient, number: int, seen: Seen) -> None:
    request = {
        "model": "policy",
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
        "return_token_ids": True,
        "stream": number % 2 == 0,
    }
    try:
        answer = await client.post("/v1/chat/completions", json=request)
        answer.raise_for_status()
        labels, tokens = _read(answer)
        assert len(tokens) == NUM_TOKENS, f"{len(tokens)} tokens: {answer.text[-300:]}"
    except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
        seen.failed.append(f"{type(error).__name__}: {error}"[:500])
    else:
        seen.add(labels, tokens)


def _read(answer: httpx.Response) -> tuple[set[str], list[int]]:
    """Each version that the answer names, and its tokens."""
    if answer.headers["content-type"].startswith("application/json"):
        whole = answer.json()
        return {whole["weight_version"]}, whole["choices"][0]["token_ids"]
    *events, done, _ = answer.text.split("\n\n")
    assert done == "data: [DONE]", answer.text[-300:]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    tokens = [token for choice in choices for token in choice.get("token_ids") or []]
    return {chunk["weight_version"] for chunk in chunks}, tokens


async def ask_until(stop: asyncio.Event, served: Replica, first: int, seen: Seen) -> None:
    async with served.client() as client:
        number = first
        while not stop.is_set():
            await ask(client, number, seen)
            number += NUM_CLIENTS + 1  # so that each client streams every other time


async def swap_in_turn(served: Replica, num_swaps: int) -> list[float]:
    """Returns how long each took."""
    names, seconds = list(STEPS), []
    for number in range(1, num_swaps + 1):
        await asyncio.sleep(PAUSE_SECONDS)
        version, began = names[number % len(names)], time.monotonic()
        await bring_to(served.store, served.settings, version)
        async with served.store.transaction() as session:
            await versions.set_serving(session, version)
        seconds.append(time.monotonic() - began)
    return seconds


def publish(root: Path) -> dict[str, dict[str, Any]]:
    return {name: stepping_model.publish(root, name, step) for name, step in STEPS.items()}


async def run(num_swaps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rewardloop-swaps-") as folder:
        async with replica(Path(folder) / "home", publish) as served:
            server = served.start(
                stepping_model.MAX_TOKENS, REWARDLOOP_SWAP_DRAIN_SECONDS=str(DRAIN_SECONDS)
            )
            try:
                await server.wait_until(served.is_healthy, START_SECONDS)
                return await _measure(served, num_swaps)
            except Exception:
                print(server.log.read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                server.stop()


async def _measure(served: Replica, num_swaps: int) -> dict[str, Any]:
    num_ended = await end_long_answers(served)
    seen, stop = Seen(), asyncio.Event()
    clients = [
        asyncio.create_task(ask_until(stop, served, first, seen)) for first in range(NUM_CLIENTS)
    ]
    try:
        seconds = await swap_in_turn(served, num_swaps)
    finally:
        stop.set()
        await asyncio.gather(*clients)
    return {
        "swaps": len(seconds),
        "requests": sum(seen.answers.values()) + len(seen.failed),
        "answers_by_version": dict(seen.answers),
        "failed_requests": len(seen.failed),
        "mixed_versions": seen.mixed,
        "mislabelled": seen.mislabelled,
        "long_answers_ended": num_ended,
        "longest_swap_seconds": round(max(seconds), 2),
        "failures": seen.failed[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=50)
    found = asyncio.run(run(parser.parse_args().swaps))
    print(json.dumps(found))
    wrong = found["failed_requests"], found["mixed_versions"], found["mislabelled"]
    sys.exit(any(wrong) or found["long_answers_ended"] != 2)


if __name__ == "__main__":
    main()
