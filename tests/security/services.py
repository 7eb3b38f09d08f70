"""API, judge and generator as real processes over a real Postgres and Valkey, with the stub engine.

What happens to a service's memory, sockets and answers under attack can be seen only where it
is a process of its own behind a real server.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from rewardloop import checkpoints
from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home
from rewardloop.embedded.process import Process, free_port
from rewardloop.records import PromptRecord
from rewardloop.store import Store, prompts, versions
from tests.integration.conftest import write_checkpoint

START_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    name: str
    url: str
    process: Process

    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


@dataclass(frozen=True)
class Services:
    api: Service
    judge: Service
    generator: Service
    api_key: str
    admin_key: str

    @property
    def all(self) -> tuple[Service, Service, Service]:
        return self.api, self.judge, self.generator


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Services]:
    """All three, with a base version that is served and a few prompts."""
    home = Home(folder)
    home.create()
    secrets = home.credentials()
    database, database_port = await postgres.start(home)
    broker, broker_port = await valkey.start(home)
    started = [database, broker]
    ports = {name: free_port() for name in ("api", "judge", "generator")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    environment = {
        "PYTHONPATH": str(Path.cwd()),
        "REWARDLOOP_DATABASE_URL": postgres.dsn(database_port, secrets.database_password).replace(
            "postgresql://", "postgresql+psycopg://", 1
        ),
        "REWARDLOOP_BROKER_URL": valkey.url(broker_port, secrets.broker_password),
        "REWARDLOOP_API_KEY": secrets.api_key,
        "REWARDLOOP_ADMIN_KEY": secrets.admin_key,
        "REWARDLOOP_GENERATOR_URLS": f'["{urls["generator"]}"]',
        "REWARDLOOP_JUDGE_URL": urls["judge"],
        "REWARDLOOP_JUDGE_UPSTREAM_URL": urls["generator"],
        "REWARDLOOP_CHECKPOINT_ROOT": str(home.checkpoints),
    }
    modules = {
        "generator": "services.generator.stub_engine",
        "judge": "services.judge",
        "api": "services.api",
    }
    try:
        await _fill(environment["REWARDLOOP_DATABASE_URL"], home.checkpoints)
        made = {}
        for name, module in modules.items():
            command = [sys.executable, "-m", module, "--port", str(ports[name])]
            process = Process(name, command, environment, home.logs / f"{name}.log")
            started.append(process)
            made[name] = Service(name, urls[name], process)
        for service in made.values():
            await service.process.wait_until(lambda at=service.url: _is_up(at), START_SECONDS)
        yield Services(**made, api_key=secrets.api_key, admin_key=secrets.admin_key)
    finally:
        for process in reversed(started):
            await asyncio.to_thread(process.stop)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


async def _fill(database_url: str, root: Path) -> None:
    store = Store(database_url)
    await store.migrate()
    manifest = checkpoints.publish(
        root, "base", lambda folder: write_checkpoint(folder, "base"), {"kind": "base"}
    )
    record = PromptRecord(({"role": "user", "content": "What is 2 + 2?"},), "4", "test")
    async with store.transaction() as session:
        await versions.add(session, "base", kind="base", parent=None, manifest=manifest)
        await versions.set_serving(session, "base")
        await prompts.add(session, "seed", [record])
    await store.close()
