"""What an engine holds and answers by: full weights, and adapters on them by their names.

Loads what was verified (`candidate`) and compares canaries. Which version should be current, who
waits meanwhile and what follows where something fails, `swap` knows.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from rewardloop import checkpoints, servable
from rewardloop.clients.generator import POLICY
from rewardloop.errors import SwapFailed, UpstreamUnavailable
from services.generator import canaries, candidate
from services.generator.adapters import Adapters
from services.generator.candidate import Candidate, Loadable, Weights
from services.generator.held_weights import HeldWeights
from services.generator.tensors import Tensors


class Holding:
    """`app` is what stands behind the gate; `version` the one that the engine shall answer by,
    which has been started on that one's full weights, or on its base's."""

    def __init__(self, app: ASGIApp, root: Path, version: str, adapters: Adapters) -> None:
        self._app = app
        self._root = root
        self._adapters = adapters
        self.version = version
        """The current one, which answers whoever names none."""
        base = checkpoints.base_of(root, version)
        self.started_on = checkpoints.folder_of(root, base or version)
        self._form = servable.read_form(self.started_on)
        self._at_start = self._form.at_start
        started_with = checkpoints.read_manifest(self.started_on)
        self._held = HeldWeights(candidate.weights_of(started_with))

    @property
    def serves_adapters(self) -> bool:
        return self._adapters.are_served

    @property
    def full_weights(self) -> Weights:
        """Those that were loaded last."""
        return self._held.weights

    @property
    def extra_stop_ids(self) -> list[int]:
        """Ids that end an answer of the loaded weights, of which vLLM does not know."""
        return sorted(self._at_start.stop_ids - self._form.at_start.stop_ids)

    async def announce(self, engine: Any) -> None:
        """Tell the engine once which weights it holds."""
        await self._held.announce(engine)

    async def weights(self, fastapi_app: Any) -> dict[str, Any]:
        """Version and per-tensor checksums of what the engine answers by, computed now."""
        engine = fastapi_app.state.engine_client
        checksums = await self._held.checksums(engine)
        named = await engine.get_weight_version()
        if self.version in self._adapters:
            checksums |= await self._adapters.digest(fastapi_app, self.version)
            named = self.version if named == self.full_weights.name else named
        return {"version": named, "checksums": checksums}

    async def inspect(self, version: str, committed: str | None) -> Candidate:
        """See `candidate.inspect`."""
        asked = (self._root, version, committed, self._form)
        return await asyncio.to_thread(candidate.inspect, *asked, on_base=self.serves_adapters)

    def loadable(self, wanted: Candidate) -> AbstractAsyncContextManager[Loadable]:
        """See `candidate.loadable`."""
        return candidate.loadable(wanted, self._form)

    def holds(self, wanted: Candidate) -> bool:
        """Whether the full weights that `wanted` needs are loaded."""
        return self._held.are(wanted.weights)

    async def look(self, fastapi_app: Any) -> Tensors:
        return await self._held.look(fastapi_app.state.engine_client)

    async def require_change(self, fastapi_app: Any, previous: Weights, before: Tensors) -> None:
        """
        Raises:
            SwapFailed: the files of the full weights are others than before, and no tensor is.
        """
        await self._held.require_change(fastapi_app.state.engine_client, previous, before)

    async def load(self, fastapi_app: Any, wanted: Candidate, files: Loadable) -> None:
        """Make `wanted` current by its full weights, and the adapter that is served on them. No
        other adapter stays, and no request may be in flight."""
        await self._adapters.forget(fastapi_app)
        engine = fastapi_app.state.engine_client
        await self._held.load(engine, wanted.weights, files.folder, wanted.version)
        checkpoints.require_state(files.folder, files.state)
        self.version, self._at_start = wanted.version, files.at_start
        if wanted.is_served_on_base:
            await self._load_adapter(fastapi_app, wanted, wait_seconds=0.0)

    async def have(
        self, fastapi_app: Any, wanted: Candidate, wait_seconds: float
    ) -> dict[str, Any]:
        """Have `wanted`, whose full weights are loaded, answer by its name. Returns its canaries;
        an adapter that does not agree with them is not kept.

        Raises:
            SwapFailed: it does not, or vLLM does not load it.
            UpstreamUnavailable: for `wait_seconds` there was no room for it.
        """
        try:
            if wanted.is_served_on_base and wanted.version not in self._adapters:
                await self._load_adapter(fastapi_app, wanted, wait_seconds)
            return await self.check_canaries(fastapi_app, wanted.folder)
        except Exception:
            if wanted.version in self._adapters:
                await self._adapters.unload(fastapi_app, wanted.version)
            raise

    async def _load_adapter(self, fastapi_app: Any, wanted: Candidate, wait_seconds: float) -> None:
        await self._adapters.load(fastapi_app, wanted.folder, self.version, wait_seconds)
        checkpoints.require_state(wanted.folder, wanted.state)

    def answers(self, version: str) -> bool:
        """Whether a request that names `version` is answered by it now."""
        return self._adapters.answer(version) or version == self.full_weights.name

    @contextmanager
    def answering(self, named: str | None) -> Iterator[tuple[str, str]]:
        """The version that answers a request which names `named`, or none, and the name by which
        the engine knows it; an adapter stays loaded for as long as the block runs.

        Raises:
            UpstreamUnavailable: it was unloaded a moment ago.
        """
        version = named or self.version
        if not self.answers(version):
            raise UpstreamUnavailable(f"{version} had to make room for other versions; try again")
        if version not in self._adapters:
            yield version, POLICY
            return
        with self._adapters.using(version):
            yield version, version

    async def check_canaries(self, fastapi_app: Any, folder: Path) -> dict[str, Any]:
        """
        Raises:
            SwapFailed: the engine's log-probabilities are not the trainer's.
        """
        canary = await self.compare_canaries(fastapi_app, folder)
        if not canaries.agrees(canary):
            raise SwapFailed(canaries.mismatch(folder, canary))
        self._adapters.let_answer(folder.name)
        return canary

    async def compare_canaries(self, fastapi_app: Any, folder: Path) -> dict[str, Any]:
        model = folder.name if folder.name in self._adapters else POLICY
        return await canaries.compare(self._app, fastapi_app, folder, model)
