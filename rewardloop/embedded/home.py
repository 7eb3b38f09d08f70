"""The home folder: what lies where, secrets, and one stack at a time."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rewardloop.errors import Conflict, NotFound

DEFAULT = Path("~/.rewardloop")


@dataclass(frozen=True)
class Credentials:
    """Made once for each home; `credentials.json`, mode 0600."""

    api_key: str
    admin_key: str
    database_password: str
    broker_password: str


@dataclass(frozen=True)
class Addresses:
    """Where the running stack listens; `stack.json`."""

    api: str
    generator: str
    judge: str
    database: str
    broker: str


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.checkpoints = self.folder / "checkpoints"
        self.logs = self.folder / "logs"
        self.postgres = self.folder / "postgres"
        self.summary = self.folder / "summary.json"
        self._credentials = self.folder / "credentials.json"
        self._addresses = self.folder / "stack.json"

    def create(self) -> None:
        for folder in (self.folder, self.checkpoints, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._credentials.exists():
            made = {
                name: secrets.token_urlsafe(32)
                for name in ("api_key", "admin_key", "database_password", "broker_password")
            }
            write_private(self._credentials, json.dumps(made, indent=1))

    def credentials(self) -> Credentials:
        """
        Raises:
            NotFound: no stack was ever started here.
        """
        return Credentials(**self._read(self._credentials))

    def addresses(self) -> Addresses:
        """
        Raises:
            NotFound: no stack was ever started here.
        """
        return Addresses(**self._read(self._addresses))

    def _read(self, path: Path) -> dict[str, str]:
        try:
            read: dict[str, str] = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise NotFound(
                f"{self.folder} holds no stack; start one with `rewardloop up --home {self.folder}`"
            ) from error
        return read

    def remember(self, addresses: Addresses) -> None:
        write_private(self._addresses, json.dumps(vars(addresses), indent=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process; the lock ends with it, however it ends.

        Raises:
            Conflict: a stack runs here already.
        """
        self.create()
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    f"a stack runs in {self.folder} already; stop it, or give another --home"
                ) from error
            yield


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
