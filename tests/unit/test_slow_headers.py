"""A real server closes connections whose headers do not come, and no others."""

import asyncio
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http import auto, h11_impl

from rewardloop.embedded.process import free_port
from services import slow_headers


async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        await asyncio.sleep(0.4)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(params=["auto", "h11"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(slow_headers, "HEADER_SECONDS", 0.3)
    chosen = h11_impl.H11Protocol if request.param == "h11" else auto.AutoHTTPProtocol
    monkeypatch.setattr(auto, "AutoHTTPProtocol", chosen)
    slow_headers.close_slow_ones()
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


async def sent(url: str, *texts: bytes) -> bytes:
    """All that comes back until the server closes, where each text waits for an answer to the
    one before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    answer = b""
    async with asyncio.timeout(20):
        for text in texts[:-1]:
            writer.write(text)
            answer += await reader.readuntil(b"ok")
        writer.write(texts[-1])
        answer += await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("text", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\nx-a: b"])
async def test_headers_that_do_not_come_end_the_connection(url: str, text: bytes) -> None:
    assert await sent(url, text) == b""


async def test_so_do_those_of_a_second_request(url: str) -> None:
    whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = await sent(url, whole, b"GET /")
    assert answer.count(b"200 OK") == 1


async def test_a_request_may_take_longer_than_its_headers(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for path in ("/slow", "/", "/slow"):
            assert (await client.get(path)).text == "ok"
