"""An httpx client whose plain requests go straight to aiohttp.

What httpx does around one request (merging URLs and headers, cookies, redirects, hooks, its own
response streams) takes several times the CPU of sending it, and a worker sends thousands a
second. So a request of a method, a path, a JSON body and headers skips all that; whatever else
is asked for goes httpx's way, over the same connections. Errors are httpx's either way.
"""

import json
from typing import Any

import httpx
from aiohttp import ClientSession, ClientTimeout
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import map_aiohttp_exceptions

from rewardloop import telemetry

_PLAIN = frozenset({"json", "content", "headers"})
_JSON = {"content-type": "application/json"}


class QuickClient(httpx.AsyncClient):
    def __init__(
        self, base_url: str, key: str, transport: AiohttpTransport, timeout: httpx.Timeout
    ) -> None:
        super().__init__(
            base_url=base_url,
            headers={"authorization": f"Bearer {key}"},
            timeout=timeout,
            transport=transport,
            event_hooks={"request": [_name_work]},
        )
        self._base = base_url.rstrip("/")
        self._own_headers = dict(self.headers)
        self._aiohttp = transport
        self._limits = ClientTimeout(
            connect=timeout.pool, sock_connect=timeout.connect, sock_read=timeout.read
        )

    async def request(self, method: str, url: httpx.URL | str, **kwargs: Any) -> httpx.Response:
        if not isinstance(url, str) or not kwargs.keys() <= _PLAIN:
            return await super().request(method, url, **kwargs)
        content, headers = kwargs.get("content"), {**self._own_headers, **_work()}
        if kwargs.get("json") is not None:
            content = encoded(kwargs["json"])
        if content is not None:
            headers |= _JSON
        headers |= kwargs.get("headers") or {}
        return await self._ask(method, self._base + url, content, headers)

    async def _ask(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> httpx.Response:
        if not isinstance(self._aiohttp.client, ClientSession):  # as the transport does it
            self._aiohttp.client = self._aiohttp.get_client()
        with map_aiohttp_exceptions():
            async with self._aiohttp.client.request(
                method,
                url,
                data=content,
                headers=headers,
                timeout=self._limits,
                allow_redirects=False,
                auto_decompress=False,
            ) as answer:
                body = await answer.read()
        # Only an error names its request, which costs as much to make as all the rest.
        asked = None if httpx.codes.is_success(answer.status) else httpx.Request(method, url)
        return httpx.Response(
            answer.status, headers=answer.raw_headers, content=body, request=asked
        )


def encoded(body: Any) -> bytes:
    """The body as httpx itself would write it."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _work() -> dict[str, str]:
    """The server's log lines carry the same ids as ours."""
    work = telemetry.work_header()
    return {telemetry.WORK_HEADER: work} if work else {}


async def _name_work(request: httpx.Request) -> None:
    request.headers.update(_work())
