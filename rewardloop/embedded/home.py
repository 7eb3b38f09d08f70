"""The home folder: what lies where, secrets, and one stack at a time."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TypeVar

from rewardloop.errors import Conflict, InvalidInput, NotFound

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


Known = TypeVar("Known", Credentials, Addresses)


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
        """
        Raises:
            InvalidInput: the home is no folder, or not ours to write.
        """
        try:
            for folder in (self.folder, self.checkpoints, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._credentials.exists():
                made = {name.name: secrets.token_urlsafe(32) for name in fields(Credentials)}
                write_private(self._credentials, json.dumps(made, indent=1))
        except OSError as error:
            raise InvalidInput(
                f"{error.filename or self.folder} cannot be made ({error.strerror}); "
                "give another --home, a folder that you may write"
            ) from error

    def credentials(self) -> Credentials:
        """
        Raises:
            NotFound: no stack was ever started here.
            InvalidInput: the file cannot be read.
        """
        return self._read(self._credentials, Credentials)

    def addresses(self) -> Addresses:
        """
        Raises:
            NotFound: no stack was ever started here.
            InvalidInput: the file cannot be read.
        """
        return self._read(self._addresses, Addresses)

    def _read(self, path: Path, kind: type[Known]) -> Known:
        try:
            return kind(**json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise NotFound(
                f"{self.folder} holds no stack; start one with `rewardloop up --home {self.folder}`"
            ) from error
        except OSError as error:
            raise InvalidInput(
                f"{path} cannot be read ({error.strerror}); give a --home that is your own folder"
            ) from error
        except (ValueError, TypeError) as error:
            keys = ", ".join(field.name for field in fields(kind))
            raise InvalidInput(
                f"{path} is no JSON object with exactly the keys {keys}; correct it, or start "
                "the stack anew with another --home"
            ) from error

    def remember(self, addresses: Addresses) -> None:
        write_private(self._addresses, json.dumps(vars(addresses), indent=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process; the lock ends with it, however it ends.

        Raises:
            Conflict: a stack runs here already.
        """
        self.create()
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    f"a stack runs in {self.folder} already; stop it, or give another --home"
                ) from error
            yield

    def _lock_file(self) -> IO[str]:
        path = self.folder / "lock"
        try:
            return path.open("w")
        except OSError as error:
            raise InvalidInput(
                f"{path} cannot be written ({error.strerror}); give another --home"
            ) from error


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
