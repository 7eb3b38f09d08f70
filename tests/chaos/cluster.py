"""A whole deployment of processes on this machine, each of which can be killed by name.

Owns what it started: every kill goes to the process group of one of its own children. What ends
by itself is started again, as a container's `restart: unless-stopped` does.
"""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home
from rewardloop.embedded.process import Process, accepts, free_port

START_SECONDS = 120.0
LOOK_SECONDS = 0.1
Start = Callable[[], Awaitable[Process]]


class Cluster:
    """Parts by name: postgres, broker, engine, judge, api, controller, worker-0, ..."""

    def __init__(self, folder: Path, *, num_workers: int, faults: dict[str, Any]) -> None:
        self.home = Home(folder / "home")
        self.home.create()
        self.calls = folder / "calls.jsonl"
        self.faults = faults
        self.num_engines_started = 0
        names = ("postgres", "broker", "engine", "judge", "api")
        self._ports = {name: free_port() for name in names}
        self.workers = [f"worker-{n}" for n in range(num_workers)]
        self._running: dict[str, Process] = {}
        self.num_unasked_restarts = 0

    @property
    def database_url(self) -> str:
        dsn = postgres.dsn(self._ports["postgres"], self.home.credentials().database_password)
        return dsn.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def broker_url(self) -> str:
        return valkey.url(self._ports["broker"], self.home.credentials().broker_password)

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self._ports[part]}"

    def environment(self) -> dict[str, str]:
        secrets = self.home.credentials()
        return {
            "REWARDLOOP_DATABASE_URL": self.database_url,
            "REWARDLOOP_BROKER_URL": self.broker_url,
            "REWARDLOOP_API_KEY": secrets.api_key,
            "REWARDLOOP_ADMIN_KEY": secrets.admin_key,
            "REWARDLOOP_GENERATOR_URLS": json.dumps([self.url("engine")]),
            "REWARDLOOP_JUDGE_URL": self.url("judge"),
            "REWARDLOOP_JUDGE_UPSTREAM_URL": self.url("engine"),
            "REWARDLOOP_CHECKPOINT_ROOT": str(self.home.checkpoints),
        }

    async def start(self, part: str) -> None:
        """Start a part; returns when its process runs, which may be before it is ready."""
        if part == "postgres":
            self._running[part], _ = await postgres.start(self.home, self._ports[part])
        elif part == "broker":
            self._running[part], _ = await valkey.start(self.home, self._ports[part])
        else:
            self._running[part] = self._service(part)

    def _service(self, part: str) -> Process:
        module, arguments = self._command(part)
        return Process(
            part,
            [sys.executable, "-m", f"services.{module}", *arguments],
            {**self.environment(), "PYTHONUNBUFFERED": "1"},
            self.home.logs / f"{part}.log",
        )

    def _command(self, part: str) -> tuple[str, list[str]]:
        if part == "controller":
            return "worker", ["controller"]
        if part in self.workers:
            return "worker", ["rollout"]
        listens = ["--host", "127.0.0.1", "--port", str(self._ports[part])]
        if part != "engine":
            return part, listens
        self.num_engines_started += 1
        seed = f"{self.faults.get('seed', '')} engine {self.num_engines_started} "
        faults = json.dumps({**self.faults, "seed": seed})
        return "generator.stub_engine", [*listens, "--faults", faults, "--calls", str(self.calls)]

    async def ready(self, part: str) -> None:
        """Wait until the part takes requests; a worker counts as ready when it was started."""
        if part in ("engine", "judge", "api"):
            deadline = time.monotonic() + START_SECONDS
            while not await asyncio.to_thread(self._is_healthy, part):
                assert time.monotonic() < deadline, f"{part} was not ready: {self.tail(part)}"
                await asyncio.sleep(LOOK_SECONDS)
        if part == "broker":
            while not accepts(self._ports[part]):
                await asyncio.sleep(LOOK_SECONDS)

    def _is_healthy(self, part: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url(part)}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def tail(self, part: str) -> str:
        lines = (self.home.logs / f"{part}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def kill(self, part: str) -> None:
        """SIGKILL to the part and what it started; it stays down until it is started again."""
        process = self._running.pop(part)
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.stop()  # reaps it

    async def bounce(self, part: str, down_seconds: float) -> float:
        """Kill the part and bring it back; returns when it was back, by the clock."""
        self.kill(part)
        await asyncio.sleep(down_seconds)
        began = time.time()
        await self.start(part)
        await self.ready(part)
        return began if part.startswith(("worker", "controller")) else time.time()

    async def supervise(self) -> None:
        """Start again, for ever, what ended by itself."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for part, process in list(self._running.items()):
                if not process.has_ended:
                    continue
                await asyncio.sleep(1)
                if self._running.get(part) is process:  # not killed meanwhile
                    self.num_unasked_restarts += 1
                    await self.start(part)

    def stop(self) -> None:
        for part in list(self._running)[::-1]:
            self.kill(part)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    num_workers: int,
    faults: dict[str, Any],
    prepare: Callable[[Cluster], Awaitable[None]],
) -> AsyncIterator[Cluster]:
    """A cluster for the block; `prepare` fills its database before the services start."""
    cluster = Cluster(folder, num_workers=num_workers, faults=faults)
    try:
        await asyncio.gather(cluster.start("postgres"), cluster.start("broker"))
        await prepare(cluster)
        for part in ("engine", "judge", "api", "controller", *cluster.workers):
            await cluster.start(part)
        await asyncio.gather(*(cluster.ready(part) for part in ("engine", "judge", "api")))
        supervisor = asyncio.create_task(cluster.supervise())
        try:
            yield cluster
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
    finally:
        cluster.stop()
