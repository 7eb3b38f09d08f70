"""Starts the whole stack in order, keeps an eye on it, and stops it in reverse."""

import asyncio
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from rewardloop.config import NEEDS, SECRETS, Settings
from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Addresses, Home
from rewardloop.embedded.process import Process, free_port, require_free
from rewardloop.errors import EnvironmentUnfit
from rewardloop.process.orphans import dying_with_parent
from rewardloop.store import Store, versions

GENERATOR_START_SECONDS = 300.0
SERVICE_START_SECONDS = 60.0
Tell = Callable[[str], None]


class Stack:
    """The running processes and where they listen."""

    addresses: Addresses
    """Known once the servers have started."""

    def __init__(self, home: Home, settings: Mapping[str, str]) -> None:
        self.home = home
        self.settings = settings
        self.processes: list[Process] = []

    def require_alive(self) -> None:
        """
        Raises:
            EnvironmentUnfit: one of the processes ended.
        """
        for process in self.processes:
            process.require_alive()

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()


@asynccontextmanager
async def running(
    home: Home,
    *,
    port: int | None,
    tell: Tell,
    generator: str = "generator",
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """The whole stack for the block; `port` is the API's, None takes any.

    `generator` names the module under `services` that serves: vLLM, or the stub engine
    in tests of faults. `settings` are environment variables of the services on top of the
    stack's own, say another REWARDLOOP_JUDGE_UPSTREAM_URL.

    Raises:
        Conflict: the home or the port is in use.
        EnvironmentUnfit: a part did not start; the message holds the end of its log.
    """
    if port:
        require_free(port)
    with home.locked():
        stack = Stack(home, settings or {})
        try:
            await _start_servers(stack, port, tell)
            await _start_services(stack, generator, tell)
            yield stack
        finally:
            stack.stop()


async def _start_servers(stack: Stack, port: int | None, tell: Tell) -> None:
    tell("starting Postgres and Valkey")
    secrets = stack.home.credentials()
    database, database_port = await postgres.start(stack.home)
    stack.processes.append(database)
    broker, broker_port = await valkey.start(stack.home)
    stack.processes.append(broker)
    stack.addresses = Addresses(
        api=f"http://127.0.0.1:{port or free_port()}",
        generator=f"http://127.0.0.1:{free_port()}",
        judge=f"http://127.0.0.1:{free_port()}",
        database=postgres.dsn(database_port, secrets.database_password),
        broker=valkey.url(broker_port, secrets.broker_password),
    )
    stack.home.remember(stack.addresses)


async def _start_services(stack: Stack, generator_module: str, tell: Tell) -> None:
    """The services that need no model start while the base model is unpacked."""
    addresses = stack.addresses
    has_model = await _migrate(stack)
    judge = _service(stack, "judge", *_listen(addresses.judge))
    api = _service(stack, "api", *_listen(addresses.api))
    _service(stack, "worker", "controller", name="controller")
    _service(stack, "worker", "rollout", name="worker")
    _service(stack, "trainer")
    if not has_model:
        tell("unpacking the base model")
        await _import_base(stack)
    tell("starting vLLM")
    generator = _service(stack, generator_module, *_listen(addresses.generator))
    await asyncio.gather(
        generator.wait_until(_healthy(addresses.generator), GENERATOR_START_SECONDS),
        judge.wait_until(_healthy(addresses.judge), SERVICE_START_SECONDS),
        api.wait_until(_healthy(addresses.api), SERVICE_START_SECONDS),
    )
    stack.require_alive()


def _sqlalchemy_url(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


def _listen(url: str) -> list[str]:
    host, _, port = url.removeprefix("http://").partition(":")
    return ["--host", host, "--port", port]


def _service(stack: Stack, module: str, *arguments: str, name: str | None = None) -> Process:
    name = name or module
    process = Process(
        name,
        [sys.executable, "-m", f"services.{module}", *arguments],
        _environment_of(stack, SERVICE_OF.get(name, name)),
        stack.home.logs / f"{name}.log",
    )
    stack.processes.append(process)
    return process


SERVICE_OF = {"generator.stub_engine": "generator"}
"""Modules that stand in for a service."""


def _environment_of(stack: Stack, service: str) -> dict[str, str]:
    """The user's settings win over the stack's own; a secret reaches those who need it."""
    theirs = {
        name: value
        for name, value in stack.settings.items()
        if _field(name) not in SECRETS or _field(name) in NEEDS[service]
    }
    return {**environment(stack.home, stack.addresses, service), **theirs}


def _field(variable: str) -> str:
    return variable.removeprefix("REWARDLOOP_").lower()


def environment(home: Home, addresses: Addresses, service: str | None = None) -> dict[str, str]:
    """The settings of this stack with the secrets that `service` needs (all of them where it is
    None), and none of what the user's shell may say of another deployment: empty is unset."""
    made = home.credentials()
    secrets = {
        "database_url": _sqlalchemy_url(addresses.database),
        "broker_url": addresses.broker,
        "api_key": made.api_key,
        "admin_key": made.admin_key,
    }
    needs = secrets.keys() if service is None else NEEDS[service]
    return {
        **{f"REWARDLOOP_{name.upper()}": "" for name in Settings.model_fields},
        **{f"REWARDLOOP_{name.upper()}": secrets[name] for name in secrets.keys() & needs},
        "REWARDLOOP_GENERATOR_URLS": f'["{addresses.generator}"]',
        "REWARDLOOP_JUDGE_URL": addresses.judge,
        "REWARDLOOP_JUDGE_UPSTREAM_URL": addresses.generator,
        "REWARDLOOP_CHECKPOINT_ROOT": str(home.checkpoints),
        # Whoever stops the stack stops its workers too: there is nobody to wait for.
        "REWARDLOOP_STOP_DRAIN_SECONDS": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _healthy(url: str) -> Callable[[], bool]:
    def probe() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    return probe


async def _migrate(stack: Stack) -> bool:
    """Bring the schema up to date; returns whether a model version is served already."""
    store = Store(_sqlalchemy_url(stack.addresses.database))
    try:
        await store.migrate()
        async with store.transaction() as session:
            return await versions.serving(session) is not None
    finally:
        await store.close()


async def _import_base(stack: Stack) -> None:
    """M0: the packaged model, published and marked as served; done once for a home."""
    log = stack.home.logs / "import_base.log"
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.trainer.import_base",
            stdout=output,
            stderr=output,
            env={**os.environ, **environment(stack.home, stack.addresses, "import_base")},
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )
        status = await child.wait()
    if status:
        raise EnvironmentUnfit(f"the base model could not be unpacked; see {log}")
