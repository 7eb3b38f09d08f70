"""Bodies that are too large, never end, or lie about their length, against a real server.

Sent over plain sockets: a client library would end such a request by itself.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from tests.security.services import Service, Services

CHUNK = b"x" * 2**16
ANSWER_SECONDS = 30.0


def paths(services: Services) -> Iterator[tuple[Service, str]]:
    yield services.api, "/v1/runs"
    yield services.api, "/v1/datasets/seed/prompts"
    yield services.api, "/v1/datasets/inspect?filename=a.json"
    yield services.judge, "/v1/chat/completions"
    yield services.generator, "/v1/chat/completions"
    yield services.generator, "/admin/activate"


def rss_growth_mb(services: Services, mebibytes: int, key: str | None) -> dict[str, float]:
    """By how much each service grew at most, while bodies of so many MiB were sent to it
    chunked, with their true length, and with one that is never reached."""
    growth = {service.name: 0.0 for service in services.all}
    for service, path in paths(services):
        before = service.rss_mb()
        with _Peak(service) as peak:
            for length in (None, mebibytes * 2**20, 10**15):
                flood(service.url, path, mebibytes, key, length)
        growth[service.name] = max(growth[service.name], peak.mb - before)
    return growth


class _Peak:
    """The largest resident size of a service during a block."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.mb = 0.0

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.mb = max(self.mb, self._service.rss_mb())


def flood(url: str, path: str, mebibytes: int, key: str | None, length: int | None) -> int | None:
    """Send a body as long as the server takes it; its answer's status, None where the server
    closed without one that could be read."""
    with closing(_begun(url, path, key, length)) as connection:
        try:
            for _ in range(mebibytes * 2**20 // len(CHUNK)):
                connection.sendall(CHUNK if length else _chunked(CHUNK))
        except OSError:
            pass  # refused in mid-body, as it should be
        return _status(connection)


def half_body(url: str, path: str, key: str) -> tuple[int | None, float]:
    """The status of the answer to a body that stops half-way, and after how many seconds."""
    started = time.monotonic()
    with closing(_begun(url, path, key, 1000)) as connection:
        connection.sendall(b'{"model": "polic')
        return _status(connection), time.monotonic() - started


def deep_json(url: str, path: str, key: str, text: bytes) -> int | None:
    with closing(_begun(url, path, key, len(text))) as connection:
        connection.sendall(text)
        return _status(connection)


def _begun(url: str, path: str, key: str | None, length: int | None) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = socket.create_connection((address.hostname, address.port), ANSWER_SECONDS)
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"POST {path} HTTP/1.1", f"host: {address.netloc}", size]
    lines.append("content-type: application/json")
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _status(connection: socket.socket) -> int | None:
    try:
        answer = connection.recv(2**16)
    except OSError:
        return None
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


DEEP = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    json.dumps({"model": "policy", "messages": []}).encode()[:-1] + b', "n": ' + b"[" * 9000,
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"seed": NaN}',
    b'{"seed": 1e999}',
    b'{"name": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"name": "\\u0000"}',
    b"\xff\xfe\x00",
    b"",
    b"null",
)
"""Bodies that once raised where nobody caught it."""
