"""What the fan-out benchmarks run on: Postgres, a broker, the stub engine and the judge, each a
process of its own, and the CPU time that each of them took."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardloop.config import parse_run_config
from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home
from rewardloop.embedded.process import Process, accepts, free_port
from rewardloop.records import Message, PromptRecord
from rewardloop.store import Store, iterations, prompts, runs
from tests.integration.stub_home import stub_home

DATASET = "fanout"
SIDE_SECONDS = 1800.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Bench:
    """Both sides, over servers that run."""

    folder: Path
    environment: dict[str, str]
    store: Store
    in_flight: int = 1024
    profile: Path | None = None
    servers: dict[str, Process] = field(default_factory=dict)
    num_runs: int = 0

    async def bare(self, num_prompts: int) -> dict[str, Any]:
        """Seconds and CPU seconds of the client that stores nothing."""
        asked = self.folder / "prompts.json"
        asked.write_text(json.dumps([list(question(n)) for n in range(num_prompts)]))
        return await self._side("bare", str(asked))

    async def ours(self, num_prompts: int) -> dict[str, Any]:
        """What one worker's roll-out took, and the CPU seconds of each process beside it."""
        iteration_id = await self.iteration(num_prompts)
        before = {name: cpu_seconds(server.pid) for name, server in self.servers.items()}
        found = await self._side("worker", iteration_id)
        async with self.store.transaction() as session:
            iteration = await iterations.get(session, iteration_id)
            await iterations.succeed(session, iteration)
        cpu = {
            name: cpu_seconds(server.pid) - before[name] for name, server in self.servers.items()
        }
        assert found["judgements"] == num_prompts * 4 * 3, found
        per_call = 1000 * found["cpu"] / (num_prompts * (1 + 4))
        return {
            **found,
            "cpu": {"worker": found["cpu"], **cpu},
            "cpu_ms_per_call": round(per_call, 3),
        }

    async def _side(self, side: str, subject: str) -> dict[str, Any]:
        """Run one side in a process of its own; it writes what it found into a file."""
        self.num_runs += 1
        out = self.folder / f"side-{self.num_runs}.json"
        command = [sys.executable, "-m", "benchmarks.fanout_sides", side, str(subject), str(out)]
        if self.profile and side == "worker":
            command += ["--profile", str(self.profile)]
        child = Process(side, command, self.environment, self.folder / f"{side}.log")
        try:
            await child.wait_until(out.exists, SIDE_SECONDS)
        finally:
            child.stop()
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    async def iteration(self, num_prompts: int) -> str:
        """A fresh iteration of so many prompts, in its roll-out."""
        config = parse_run_config(
            {
                "name": f"fanout {self.num_runs}",
                "prompts": {"dataset": DATASET, "num_per_iteration": num_prompts},
                "rollout": {"max_prompts_in_flight": self.in_flight},
                "judging": {"mode": "constrained"},
            }
        )
        async with self.store.transaction() as session:
            run = await runs.create(session, config, {})
            (made,) = await runs.add_iterations(session, run.id, 1)
            assert await iterations.try_start(session, made.id)
            iteration = await iterations.get(session, made.id)
            await iterations.enter(session, iteration, iterations.Phase.ROLLOUT)
            return str(made.id)


def question(number: int) -> tuple[Message, ...]:
    return ({"role": "user", "content": f"question {number}: what do you think of it, and why?"},)


def cpu_seconds(pid: int) -> float:
    """Of the process and the children that it has or had."""
    total = 0.0
    for found in [str(pid), *children(pid)]:
        try:
            fields = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        own = [int(fields[at]) for at in (11, 12, 13, 14)]
        total += sum(own) / TICKS
    return total


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


@asynccontextmanager
async def bench(
    folder: Path, num_prompts: int, latency_seconds: float, **options: Any
) -> AsyncIterator[Bench]:
    """Everything started, and so many prompts stored."""
    home = await stub_home(folder / "home")
    database, port = await postgres.start(home)
    broker, broker_port = await valkey.start(home)
    secrets = home.credentials()
    address = postgres.dsn(port, secrets.database_password)
    environment = _environment(home, address, valkey.url(broker_port, secrets.broker_password))
    store = Store(environment["REWARDLOOP_DATABASE_URL"])
    made = Bench(folder, environment, store, **options)
    made.servers["postgres"] = database
    try:
        await _start(made, latency_seconds)
        records = [PromptRecord(question(n), None, "bench") for n in range(num_prompts)]
        async with store.transaction() as session:
            await prompts.add(session, DATASET, records)
        yield made
    finally:
        await store.close()
        for server in [*reversed(made.servers.values()), broker]:
            server.stop()


def _environment(home: Home, address: str, broker: str) -> dict[str, str]:
    generator, judge = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    secrets = home.credentials()
    found = {
        "DATABASE_URL": address.replace("postgresql:", "postgresql+psycopg:"),
        "BROKER_URL": broker,
        "API_KEY": secrets.api_key,
        "ADMIN_KEY": secrets.admin_key,
        "GENERATOR_URLS": json.dumps([generator]),
        "JUDGE_URL": judge,
        "JUDGE_UPSTREAM_URL": generator,
        "CHECKPOINT_ROOT": str(home.checkpoints),
        "MAX_REQUESTS_PER_SECOND": "1000000",
    }
    return {f"REWARDLOOP_{name}": value for name, value in found.items()}


async def _start(made: Bench, latency_seconds: float) -> None:
    environment = made.environment
    (generator,) = json.loads(environment["REWARDLOOP_GENERATOR_URLS"])
    faults = json.dumps({"latency_seconds": latency_seconds})
    for name, module, url, more in (
        ("stub", "services.generator.stub_engine", generator, ["--faults", faults]),
        ("judge", "services.judge", environment["REWARDLOOP_JUDGE_URL"], []),
    ):
        port = int(url.rpartition(":")[2])
        command = [sys.executable, "-m", module, "--port", str(port), *more]
        server = Process(name, command, environment, made.folder / f"{name}.log")
        made.servers[name] = server
        await server.wait_until(lambda port=port: accepts(port), 60)  # type: ignore[misc]
