"""The one-machine servers: nobody's folders change, nobody gets in, nothing is left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home
from rewardloop.embedded.process import Process, free_port, require_free
from rewardloop.embedded.stack import running
from rewardloop.errors import Conflict, EnvironmentUnfit

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up root")


def modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of `folder` and of each folder above it."""
    found = {path: path.stat() for path in (folder, *folder.parents)}
    return {path: (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for path, s in found.items()}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home in a folder that only its owner may enter."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    made = Home(private / "home")
    yield made
    file = made.postgres / "postmaster.pid"
    if file.exists():  # a test failed before it could stop what it started
        with suppress(ProcessLookupError):  # it ends just now
            os.kill(int(file.read_text().split()[0]), signal.SIGINT)


@pytest.fixture
async def database(home: Home) -> AsyncIterator[tuple[Process, int]]:
    home.create()
    process, port = await postgres.start(home)
    yield process, port
    process.stop()


def address(home: Home, port: int) -> str:
    return postgres.dsn(port, home.credentials().database_password)


async def test_postgres_changes_no_folder_and_keeps_its_data(home: Home) -> None:
    before = modes(home.folder.parent)
    home.create()
    made = modes(home.folder)
    process, port = await postgres.start(home)
    try:
        assert modes(home.folder.parent) == before
        assert modes(home.folder) == made
        assert stat.S_IMODE(home.postgres.stat().st_mode) == 0o700
        with psycopg.connect(address(home, port)) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('before')")
    finally:
        process.stop()
    process, port = await postgres.start(home)
    try:
        with psycopg.connect(address(home, port)) as connection:
            assert connection.execute("SELECT word FROM kept").fetchall() == [("before",)]
    finally:
        process.stop()
    assert modes(home.folder) == made


class Killed(BaseException):
    """What a test of a sudden end raises."""


async def test_a_cluster_that_was_not_finished_is_made_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """initdb writes PG_VERSION among the first files: the marker says nothing about the rest."""

    def killed(command: list[str], **_: Any) -> None:
        (folder,) = (a.removeprefix("--pgdata=") for a in command if a.startswith("--pgdata="))
        (Path(folder) / "PG_VERSION").write_text("18\n")
        raise Killed

    home.create()
    with monkeypatch.context() as patched:
        patched.setattr(postgres.subprocess, "run", killed)
        with pytest.raises(Killed):
            await postgres.start(home)
    process, _ = await postgres.start(home)
    process.stop()
    assert not home.postgres.with_name("postgres.partial").exists()


async def test_a_killed_postgres_recovers_what_was_committed(home: Home) -> None:
    home.create()
    process, port = await postgres.start(home)
    with psycopg.connect(address(home, port), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100000) AS number")
    os.killpg(process.pid, signal.SIGKILL)  # the server and its children, which we started
    process.stop()
    process, port = await postgres.start(home)
    try:
        with psycopg.connect(address(home, port)) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (100000,)
    finally:
        process.stop()


async def test_only_the_password_opens_postgres(home: Home, database: tuple[Process, int]) -> None:
    _, port = database
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn(port, "wrong"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://{postgres.USER}@127.0.0.1:{port}/postgres")


async def test_postgres_listens_on_loopback_and_on_no_socket(
    home: Home, database: tuple[Process, int]
) -> None:
    process, port = database
    with psycopg.connect(address(home, port)) as connection:
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
    server = psutil.Process(process.pid)
    listening = [c for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {(c.laddr.ip, c.laddr.port) for c in listening} == {("127.0.0.1", port)}
    assert not [c for c in server.net_connections("unix") if c.laddr]


@as_root
async def test_postgres_does_not_run_as_root(database: tuple[Process, int]) -> None:
    server = psutil.Process(database[0].pid)
    family = []
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a worker of Postgres that has ended since
            family.append({*process.uids(), *process.gids()})
    assert len(family) > 1
    assert all(0 not in ids for ids in family)


async def test_no_password_is_on_a_command_line(home: Home, database: tuple[Process, int]) -> None:
    broker, _ = await valkey.start(home)
    try:
        secrets = vars(home.credentials()).values()
        for process in (database[0], broker):
            told = " ".join(psutil.Process(process.pid).cmdline())
            assert not [secret for secret in secrets if secret in told]
    finally:
        broker.stop()


async def test_valkey_needs_its_password_and_evicts_nothing(home: Home) -> None:
    home.create()
    process, port = await valkey.start(home)
    try:
        with (
            redis.Redis(port=port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        with redis.Redis.from_url(valkey.url(port, home.credentials().broker_password)) as client:
            policy = client.config_get("maxmemory-policy")
            assert policy == {"maxmemory-policy": "noeviction"}
        listening = [
            c
            for c in psutil.Process(process.pid).net_connections("tcp")
            if c.status == psutil.CONN_LISTEN
        ]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    finally:
        process.stop()


@pytest.mark.parametrize("server", [postgres, valkey])
async def test_a_start_that_is_given_up_leaves_no_server(
    home: Home, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    started: list[Process] = []

    async def give_up(process: Process, *_: Any, **__: Any) -> None:
        started.append(process)
        raise Killed

    home.create()
    monkeypatch.setattr(Process, "wait_until", give_up)
    with pytest.raises(Killed):
        await server.start(home)
    (process,) = started
    with pytest.raises(EnvironmentUnfit, match="ended"):
        process.require_alive()


async def test_one_stack_runs_in_a_home(home: Home) -> None:
    told: list[str] = []
    with home.locked(), pytest.raises(Conflict, match="runs in"):
        async with running(Home(home.folder), port=None, tell=told.append):
            pytest.fail("a second stack started")
    assert told == []
    with home.locked():
        pass  # free again


async def test_a_port_in_use_is_told_before_anything_starts(
    home: Home, database: tuple[Process, int]
) -> None:
    _, port = database
    told: list[str] = []
    with pytest.raises(Conflict, match=str(port)):
        async with running(home, port=port, tell=told.append):
            pytest.fail("the stack started")
    assert told == []
    require_free(free_port())


def test_secrets_are_for_their_owner_only_and_stay(home: Home) -> None:
    home.create()
    file = home.folder / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    before = home.credentials()
    assert len(set(vars(before).values())) == 4
    home.create()
    assert home.credentials() == before


PARENT = """
import asyncio, json, sys, time
from pathlib import Path
from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home

async def main():
    home = Home(Path(sys.argv[1]))
    home.create()
    started = [await postgres.start(home), await valkey.start(home)]
    print(json.dumps([process.pid for process, _ in started]), flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def orphans(home: Home) -> Iterator[list[psutil.Process]]:
    """Postgres and Valkey whose parent was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(home.folder)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids: list[Any] = json.loads(parent.stdout.readline())
        found = [psutil.Process(pid) for pid in pids]
        parent.kill()
    yield found
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
            process.wait(10)


def test_a_killed_parent_leaves_no_servers(orphans: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 8
    while any(alive(process) for process in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process.name() for process in orphans if alive(process)] == []


IMPORTING = """
import asyncio, sys
from pathlib import Path
from rewardloop.embedded import stack
from rewardloop.embedded.home import Addresses, Home

home = Home(Path(sys.argv[1]))
home.create()
made = stack.Stack(home, {})
made.addresses = Addresses(*["postgresql://nowhere"] * 5)
sys.executable = sys.argv[2]  # stands for the import, and only waits
asyncio.run(stack._import_base(made))
"""


def test_a_killed_parent_leaves_no_import(home: Home, tmp_path: Path) -> None:
    waiter = tmp_path / "waiter"
    waiter.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    waiter.chmod(0o755)
    log = home.logs / "import_base.log"
    command = [sys.executable, "-c", IMPORTING, str(home.folder), str(waiter)]
    with subprocess.Popen(command) as parent:
        wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
        child = psutil.Process(int(log.read_text()))
        parent.kill()
    try:
        wait_for(lambda: not alive(child))
    finally:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
