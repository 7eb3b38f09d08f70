"""One real replica over a real Postgres: vLLM behind the gate, as the launcher starts it."""

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rewardloop.config import Settings
from rewardloop.embedded import postgres
from rewardloop.embedded.home import Addresses, Home
from rewardloop.embedded.process import Process, free_port
from rewardloop.embedded.stack import environment
from rewardloop.store import Store, versions

START_SECONDS = 600.0
"""A busy machine takes minutes to import vLLM."""


@dataclass
class Replica:
    url: str
    settings: Settings
    store: Store
    home: Home
    variables: Mapping[str, str]

    def client(self, *, admin: bool = False) -> httpx.AsyncClient:
        key = self.settings.admin_key if admin else self.settings.api_key
        headers = {"authorization": f"Bearer {key.get_secret_value()}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=240)

    def start(self, max_model_len: int, *, options: Sequence[str] = (), **settings: str) -> Process:
        """Start a server on the version that is marked as served; nobody waits for it.

        `options` are vLLM's own.
        """
        command = [sys.executable, "-m", "services.generator"]
        port = self.url.rpartition(":")[2]
        command += ["--host", "127.0.0.1", "--port", port, "--max-model-len", str(max_model_len)]
        command += options
        variables = {**self.variables, **settings}
        return Process("generator", command, variables, self.home.logs / "generator.log")

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


Publish = Callable[[Path], Mapping[str, Mapping[str, Any]]]
"""Writes checkpoints under a root; returns their manifests, the one to serve first."""


@asynccontextmanager
async def replica(folder: Path, publish: Publish) -> AsyncIterator[Replica]:
    """Postgres with the published versions, and where a replica of them would listen."""
    home = Home(folder)
    home.create()
    database, port = await postgres.start(home)
    try:
        url = f"http://127.0.0.1:{free_port()}"
        dsn = postgres.dsn(port, home.credentials().database_password)
        addresses = Addresses(url, url, url, dsn, "redis://127.0.0.1:1/0")
        variables = {name: value for name, value in environment(home, addresses).items() if value}
        settings = _settings(variables)
        store = Store(settings.database_url.get_secret_value())
        try:
            await _commit(store, publish(home.checkpoints))
            yield Replica(url, settings, store, home, variables)
        finally:
            await store.close()
    finally:
        database.stop()


def _settings(variables: Mapping[str, str]) -> Settings:
    prefix = "REWARDLOOP_"
    given: dict[str, Any] = {
        name.removeprefix(prefix).lower(): value
        for name, value in variables.items()
        if name.startswith(prefix)
    }
    return Settings(**{**given, "generator_urls": json.loads(given["generator_urls"])})


async def _commit(store: Store, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    await store.migrate()
    async with store.transaction() as session:
        for version, manifest in manifests.items():
            await versions.add(session, version, kind="base", parent=None, manifest=dict(manifest))
        await versions.set_serving(session, next(iter(manifests)))
