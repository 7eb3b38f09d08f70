"""What engines say of how much they have to do, in the metrics that vLLM itself serves.

An address that answers without these metrics is another kind of server, and is asked no more.
One that does not answer says nothing here: the calls to it will tell.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import Self

import httpx

from rewardloop.clients.allowance import Load
from rewardloop.clients.http import answered, connect
from rewardloop.errors import RewardloopError, UpstreamUnavailable

LOOK_SECONDS = 2.0
"""An engine that takes longer says nothing this time."""
_REPORT = re.compile(
    r"^vllm:num_requests_(?P<which>running|waiting)(?:\{.*\})? (?P<num>\S+)$", re.MULTILINE
)


class Loads:
    def __init__(self, key: str) -> None:
        self._key = key
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._silent: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    async def of(self, urls: Iterable[str]) -> dict[str, Load]:
        """By address, what those that report have to do now."""
        asked = [url for url in urls if url not in self._silent]
        found = zip(asked, await asyncio.gather(*map(self._look, asked)), strict=True)
        return {url: load for url, load in found if load is not None}

    async def _look(self, url: str) -> Load | None:
        if url not in self._clients:
            self._clients[url] = connect(url, self._key, timeout_seconds=LOOK_SECONDS)
        try:
            answer = await answered(self._clients[url], "GET", "/metrics")
            load = reported(answer.text)
        except UpstreamUnavailable:
            return None
        except RewardloopError:
            load = None
        if load is None:
            self._silent.add(url)
        return load


def reported(metrics: str) -> Load | None:
    """What a page of Prometheus metrics says, all engines of the server together; None where it
    says nothing of it."""
    sums: dict[str, float] = {}
    for found in _REPORT.finditer(metrics):
        sums[found["which"]] = sums.get(found["which"], 0.0) + float(found["num"])
    return Load(sums["running"], sums["waiting"]) if len(sums) == 2 else None
