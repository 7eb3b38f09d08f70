"""What a rolling swap of two replicas behind a stock router costs those who ask meanwhile.

    python -m benchmarks.rolling [--swaps 3] [--clients 16] [--seconds 20]

Two stub engines (0.2 s to 0.3 s an answer, 2 s to reload weights) behind the real gate register
themselves in Postgres; `vllm-router` from PyPI stands in front of them and asks `GET /ready`
every second. Clients ask the router all the time. Their p99 latency while the controller brings
other weights to the replicas, one after another, is compared with that of the same clients
undisturbed, in turns. `failed` are answers other than 200, `mixed` are answers whose text was
written by other weights than the answer names.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from rewardloop import checkpoints
from rewardloop.clients.http import connect
from rewardloop.config import Settings
from rewardloop.embedded import postgres
from rewardloop.embedded.process import Process, free_port
from rewardloop.store import Store, replicas, versions
from services.worker.swap import bring_to
from tests.integration.conftest import write_checkpoint
from tests.integration.stub_home import stub_home

FAULTS = {"latency_seconds": 0.2, "latency_spread_seconds": 0.1, "reload_seconds": 2.0}
START_SECONDS = 120.0
NOTICE_SECONDS = 3.0
"""Longer than the router's checks are apart, and one takes."""
ROUTER = ["-m", "vllm_router.launch_router", "--policy", "round_robin"]
ROUTER_CHECKS = {
    "--health-check-endpoint": "/ready",
    "--health-check-interval-secs": "1",
    "--health-failure-threshold": "1",
    "--health-success-threshold": "1",
}
OTHER = "other"


@dataclass
class Seen:
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    mixed: int = 0
    by_version: dict[str, int] = field(default_factory=dict)

    def add(self, seconds: float, answer: dict[str, Any]) -> None:
        self.seconds.append(seconds)
        version = answer["weight_version"]
        self.by_version[version] = self.by_version.get(version, 0) + 1
        text = answer["choices"][0]["message"]["content"]
        self.mixed += not text.startswith(f"[{version}]")

    @property
    def p99(self) -> float:
        return float(np.percentile(self.seconds, 99))


@dataclass
class Bench:
    url: str
    """The router's."""
    settings: Settings
    store: Store

    async def ask_while(self, work: Callable[[], Any], num_clients: int) -> Seen:
        """What clients were answered while `work` ran."""
        seen, over = Seen(), asyncio.Event()
        key = self.settings.api_key.get_secret_value()
        async with connect(self.url, key, timeout_seconds=60) as client:
            asking = [
                asyncio.create_task(_ask_until(over, client, number, seen))
                for number in range(num_clients)
            ]
            await work()
            over.set()
            await asyncio.gather(*asking)
        return seen

    async def swap(self) -> None:
        """To the version that is not served, as the controller does it."""
        async with self.store.transaction() as session:
            serving = await versions.serving(session)
        version = OTHER if serving == "base" else "base"
        await bring_to(self.store, self.settings, version)
        async with self.store.transaction() as session:
            await replicas.require_all_on(session, version)
            await versions.set_serving(session, version)


async def _ask_until(
    over: asyncio.Event, client: httpx.AsyncClient, number: int, seen: Seen
) -> None:
    count = 0
    while not over.is_set():
        count += 1
        messages = [{"role": "user", "content": f"question {number} {count}"}]
        began = time.monotonic()
        try:
            answer = await client.post(
                "/v1/chat/completions", json={"model": "policy", "messages": messages}
            )
            answer.raise_for_status()
            seen.add(time.monotonic() - began, answer.json())
        except (httpx.HTTPError, ValueError, KeyError) as error:
            seen.failed.append(f"{type(error).__name__}: {error}"[:300])


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    home = await stub_home(folder / "home")
    manifest = checkpoints.publish(
        home.checkpoints, OTHER, lambda f: write_checkpoint(f, OTHER), {"kind": "base"}
    )
    database, port = await postgres.start(home)
    made = home.credentials()
    dsn = postgres.dsn(port, made.database_password).replace("postgresql:", "postgresql+psycopg:")
    settings = Settings(
        database_url=dsn,
        broker_url="redis://127.0.0.1:1/0",
        api_key=made.api_key,
        admin_key=made.admin_key,
        checkpoint_root=home.checkpoints,
        generator_urls=[],
        notice_seconds=NOTICE_SECONDS,
        data_url=f"http://127.0.0.1:{free_port()}",
    )
    store = Store(dsn)
    processes: list[Process] = []
    try:
        async with store.transaction() as session:
            await versions.add(session, OTHER, kind="base", parent=None, manifest=manifest)
        urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
        processes += [
            _replica(url, settings, folder / f"replica-{n}.log") for n, url in enumerate(urls)
        ]
        for process, url in zip(list(processes), urls, strict=True):
            await process.wait_until(answers(f"{url}/ready"), START_SECONDS)
        assert settings.data_url is not None
        processes.append(router(settings.data_url, urls, folder / "router.log"))
        await processes[-1].wait_until(answers(f"{settings.data_url}/health"), START_SECONDS)
        yield Bench(settings.data_url, settings, store)
    finally:
        await store.close()
        for process in [*reversed(processes), database]:
            process.stop()


def _replica(url: str, settings: Settings, log: Path) -> Process:
    variables = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "API_KEY": settings.api_key.get_secret_value(),
        "ADMIN_KEY": settings.admin_key.get_secret_value(),
        "CHECKPOINT_ROOT": str(settings.checkpoint_root),
        "REPLICA_URL": url,
    }
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "services.generator.stub_engine", "--port", port]
    named = {f"REWARDLOOP_{name}": value for name, value in variables.items()}
    return Process("replica", [*command, "--faults", json.dumps(FAULTS)], named, log)


def router(url: str, replica_urls: list[str], log: Path) -> Process:
    checks = [word for option in ROUTER_CHECKS.items() for word in option]
    address = ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    ports = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    command = [sys.executable, *ROUTER, *address, *ports, *checks, "--worker-urls", *replica_urls]
    return Process("router", command, {}, log)


def answers(url: str) -> Callable[[], bool]:
    def probe() -> bool:
        try:
            return httpx.get(url, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    return probe


async def measure(num_swaps: int, num_clients: int, seconds: float) -> list[tuple[Seen, Seen]]:
    """Undisturbed and during a swap, in turns."""
    with tempfile.TemporaryDirectory(prefix="rewardloop-rolling-") as folder:
        async with bench(Path(folder)) as made:
            await made.ask_while(lambda: asyncio.sleep(3), num_clients)
            return [
                (
                    await made.ask_while(lambda: asyncio.sleep(seconds), num_clients),
                    await made.ask_while(made.swap, num_clients),
                )
                for _ in range(num_swaps)
            ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    turns = asyncio.run(measure(options.swaps, options.clients, options.seconds))
    print(f"{'':>20} {'requests':>8} {'p99 s':>7} {'failed':>6} {'mixed':>5}  by version")
    for pair in turns:
        for name, seen in zip(("undisturbed", "rolling swap"), pair, strict=True):
            row = f"{name:>20} {len(seen.seconds):>8} {seen.p99:>7.3f} {len(seen.failed):>6}"
            print(f"{row} {seen.mixed:>5}  {seen.by_version} {seen.failed[:1] or ''}")
    all_seen = [seen for pair in turns for seen in pair]
    ratio = statistics.median(swap.p99 / quiet.p99 for quiet, swap in turns)
    failed = sum(len(seen.failed) for seen in all_seen)
    mixed = sum(seen.mixed for seen in all_seen)
    print(json.dumps({"rolling_p99_ratio": round(ratio, 3), "failed": failed, "mixed": mixed}))


if __name__ == "__main__":
    main()
