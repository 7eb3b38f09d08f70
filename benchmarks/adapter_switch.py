"""How long it takes to make an adapter current, against a swap of full weights.

    python -m benchmarks.adapter_switch [--rounds 5] [--home DIR]

Two real vLLM servers, one after the other, with SmolLM2-135M and four adapters of rank 16. The
first serves adapters on the base, and its side is the whole of `/admin/activate` for an adapter
that is not loaded. The second merges, and its side is the whole of `/admin/activate` too: verify,
merge, swap full weights, verify what was loaded. Nothing else is asked meanwhile. The first
activation of each version is not counted: it fills the file cache. Of each server the tokens per
second are told, of NUM_ANSWERS answers at once.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.security import random_adapters
from tests.security.real_replica import START_SECONDS, Replica, replica

ADAPTERS = ("a1", "a2", "a3", "a4")
ROOM = 2
"""Adapters that the engine holds: fewer than take turns, so that each is loaded anew."""
MAX_MODEL_LEN = 2048
NUM_ANSWERS, NUM_TOKENS = 16, 64


async def activated(admin: httpx.AsyncClient, version: str) -> float:
    """Seconds."""
    began = time.monotonic()
    answer = await admin.post("/admin/activate", json={"version": version})
    answer.raise_for_status()
    return time.monotonic() - began


async def tokens_per_second(api: httpx.AsyncClient) -> float:
    body = {"model": "policy", "prompt": "The sea", "n": NUM_ANSWERS, "max_tokens": NUM_TOKENS}
    began = time.monotonic()
    answer = await api.post("/v1/completions", json={**body, "temperature": 1.0})
    answer.raise_for_status()
    tokens: int = answer.json()["usage"]["completion_tokens"]
    return tokens / (time.monotonic() - began)


async def side(served: Replica, adapters: str, turns: list[str]) -> tuple[list[float], float]:
    """Seconds of each activation but the first of each version, and tokens per second."""
    settings = {"REWARDLOOP_ADAPTERS": adapters, "REWARDLOOP_MAX_ADAPTERS": str(ROOM)}
    server = served.start(MAX_MODEL_LEN, **settings)
    try:
        await server.wait_until(served.is_healthy, START_SECONDS)
        found: list[float] = []
        async with served.client() as api, served.client(admin=True) as admin:
            for number, version in enumerate(turns):
                seconds = await activated(admin, version)
                print(f"{adapters:>6} {version:>4} {seconds:>8.3f} s", flush=True)
                found += [seconds] if number >= len(set(turns)) else []
            await tokens_per_second(api)
            return found, await tokens_per_second(api)
    finally:
        server.stop()


async def measure(rounds: int, home: Path) -> dict[str, Any]:
    turns = [ADAPTERS[turn % len(ADAPTERS)] for turn in range(rounds + len(ADAPTERS))]
    async with replica(home, lambda root: random_adapters.publish(root, ADAPTERS)) as served:
        served_seconds, served_speed = await side(served, "serve", turns)
        merged_seconds, merged_speed = await side(served, "merge", turns)
    ours, full = statistics.median(served_seconds), statistics.median(merged_seconds)
    return {
        "adapter_switch_ratio": round(ours / full, 3),
        "adapter_seconds": round(ours, 3),
        "full_swap_seconds": round(full, 3),
        "adapter_tokens_per_second": round(served_speed, 1),
        "merged_tokens_per_second": round(merged_speed, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="keep the published versions here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-adapters-") as folder:
        home = options.home or Path(folder) / "home"
        found = asyncio.run(measure(options.rounds, home))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
