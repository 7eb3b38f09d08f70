"""The adapters that an engine holds on its base, each answering by the name of its version.

vLLM makes room by itself: it forgets the adapter that was used least recently, and reads it from
its folder again when a request wants it, whatever lies there by then. So it is never left to:
no more are loaded than it holds, and one goes only while no request uses it.

Cached prefixes belong to an adapter's name and folder in vLLM, so none is used for another one.
Knows nothing of verified files or canaries.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop.errors import SwapFailed
from rewardloop.servable.code import read_json
from services.generator import deadlines
from services.generator.deadlines import within


@dataclass(frozen=True)
class _ToLoad:
    """What vLLM's own handler reads of a request to load or unload an adapter."""

    lora_name: str
    lora_path: str = ""
    load_inplace: bool = False
    is_3d_lora_weight: bool = False


@dataclass
class _Adapter:
    is_verified: bool = False
    """Only then requests meet it."""
    num_requests: int = 0
    used: int = 0
    """When it was used last, as a number that grows."""


class Adapters:
    def __init__(self, capacity: int = 0, max_rank: int = 0) -> None:
        """As many as vLLM was started for, of a rank up to `max_rank`; 0 where it merges them."""
        self._capacity = capacity
        self._max_rank = max_rank
        self._loaded: dict[str, _Adapter] = {}
        self._uses = 0
        self._one_is_idle = asyncio.Event()

    @property
    def are_served(self) -> bool:
        """Whether this engine serves adapters on their base, rather than merge them."""
        return self._capacity > 0

    def __contains__(self, version: str) -> bool:
        return version in self._loaded

    def answer(self, version: str) -> bool:
        """Whether requests may name it."""
        return version in self._loaded and self._loaded[version].is_verified

    def let_answer(self, version: str) -> None:
        """Its canaries agree, where it is an adapter."""
        if version in self._loaded:
            self._loaded[version].is_verified = True

    @contextmanager
    def using(self, version: str) -> Iterator[None]:
        """Keep a loaded adapter while a request uses it."""
        adapter = self._loaded[version]
        self._uses += 1
        adapter.used = self._uses
        adapter.num_requests += 1
        try:
            yield
        finally:
            adapter.num_requests -= 1
            if not adapter.num_requests:
                self._one_is_idle.set()

    async def load(self, fastapi_app: Any, folder: Path, keep: str, wait_seconds: float) -> None:
        """Load the adapter in `folder`. Where there is no room, one goes that no request uses and
        that is not `keep`.

        Raises:
            SwapFailed: vLLM does not take it.
            UpstreamUnavailable: every other one was in use for `wait_seconds`.
        """
        self._require_rank(folder)
        await self._make_room(fastapi_app, keep, wait_seconds)
        async with within(deadlines.LOAD_SECONDS, f"loading the adapter {folder.name}"):
            said = await fastapi_app.state.openai_serving_models.load_lora_adapter(
                _ToLoad(folder.name, str(folder))
            )
        if not isinstance(said, str):
            raise SwapFailed(f"vLLM does not load the adapter {folder.name}: {said.error.message}")
        self._uses += 1
        self._loaded[folder.name] = _Adapter(used=self._uses)

    def _require_rank(self, folder: Path) -> None:
        rank = read_json(folder / "adapter_config.json").get("r")
        if not isinstance(rank, int) or rank > self._max_rank:
            raise SwapFailed(
                f"the adapter {folder.name} is of rank {rank}, and this engine was started for "
                f"ranks up to {self._max_rank}; set REWARDLOOP_MAX_ADAPTER_RANK and restart it"
            )

    async def _make_room(self, fastapi_app: Any, keep: str, wait_seconds: float) -> None:
        if len(self._loaded) < self._capacity:
            return
        what = f"waiting until one of {self._capacity} adapters answers no request"
        async with within(wait_seconds, what):
            while len(self._loaded) >= self._capacity:
                self._one_is_idle.clear()
                idle = [v for v, a in self._loaded.items() if not a.num_requests and v != keep]
                if idle:
                    await self.unload(fastapi_app, min(idle, key=lambda v: self._loaded[v].used))
                else:
                    await self._one_is_idle.wait()

    async def unload(self, fastapi_app: Any, version: str) -> None:
        """From now on nothing answers by the name of `version`."""
        del self._loaded[version]
        models = fastapi_app.state.openai_serving_models
        number = models.lora_requests[version].lora_int_id
        await models.unload_lora_adapter(_ToLoad(version))
        await fastapi_app.state.engine_client.remove_lora(number)

    async def forget(self, fastapi_app: Any) -> None:
        """Full weights were loaded, with which vLLM's workers drop every adapter."""
        for version in list(self._loaded):
            await self.unload(fastapi_app, version)

    async def digest(self, fastapi_app: Any, version: str) -> dict[str, str]:
        """sha256 over the tensors that the engine holds of an adapter, by worker."""
        number = fastapi_app.state.openai_serving_models.lora_requests[version].lora_int_id
        engine = fastapi_app.state.engine_client
        found = await engine.collective_rpc("adapter_digest", kwargs={"number": number})
        return {f"adapter of worker {rank}": digest for rank, digest in enumerate(found)}
