"""The hot swap: new weights in a running engine, verified before anybody meets them.

    compare the manifest with Postgres' and the files with the manifest -> compare the model
    with the one that the server started with -> say "not ready", and go on for so long as a
    router needs to see it -> hold new requests back -> let those in flight finish, or end them
    -> pause -> reload in place -> set the weight version -> see that tensors changed -> compare
    canaries -> let requests in -> compute every checksum, for the report

What needs no pause happens outside of it: files are read and hashed before, and the checksums
of what was loaded are known from the last swap.

An engine that has just started is verified too before its first request (`require_proven`).

Canaries (see `canaries`) catch an engine that serves stale weights after a reload (vllm issue
32718).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from rewardloop import checkpoints, servable, telemetry
from rewardloop.errors import RewardloopError, SwapFailed, UpstreamUnavailable
from rewardloop.records import ReplicaState
from rewardloop.servable.at_start import ReadAtStart, read_at_start
from services.generator import admission, canaries, nucleus_install, readiness, tensors
from services.generator.admission import Admission
from services.generator.readiness import Readiness
from services.generator.tensors import Tensors

logger = logging.getLogger("rewardloop.generator")

DRAIN_SECONDS = 60.0
"""So long a swap waits for requests in flight before it ends them, unless it is told otherwise."""
STEP_SECONDS = 60.0
"""For canaries, and for checksums of the smallest model."""
LOAD_SECONDS = 60.0
"""For loading the smallest model."""
BYTES_PER_SECOND = 100e6
"""What a slow disk gives: a model of so many bytes has a second more in either step."""


@dataclass(frozen=True)
class _Files:
    """What was seen of a version's folder before the pause."""

    state: str
    """What the file system says of it; equal after the reload, or it was written to."""
    at_start: ReadAtStart


class Swapper:
    """Knows which version the engine holds. One swap at a time.

    `committed` is the digest of the manifest in Postgres, and `state` what the file system
    said of the folder when the launcher had verified it.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        root: Path,
        version: str,
        committed: str | None = None,
        state: str | None = None,
        drain_seconds: float = DRAIN_SECONDS,
        readiness: Readiness | None = None,
    ) -> None:
        self._app = app
        self._readiness = readiness or Readiness()
        self._drain_seconds = drain_seconds
        self._admission = admission
        self._root = root
        self.version = version
        self._form = servable.read_form(checkpoints.folder_of(root, version))
        self._loaded = self._form.at_start
        self._committed = {version: committed}
        self._verified_state = state
        self._manifests: dict[str, dict[str, Any]] = {}
        """As they were verified, whatever lies in the folders by now."""
        self._tensors: Tensors | None = None
        """None where they were not looked at since something was loaded."""
        self._announced = False
        self._broken: str | None = None
        self._lock = asyncio.Lock()
        self._is_proven = False
        self._proof: asyncio.Task[None] | None = None

    async def require_proven(self, fastapi_app: Any, seconds: float | None = None) -> None:
        """Wait until the version that the engine started with has been verified.

        Raises:
            UpstreamUnavailable: that took longer than `seconds` (None: than a request is held),
                or this replica is out of service.
        """
        if not self._is_proven and not self._broken:
            proof = self.begin_proof(fastapi_app)
            done, _ = await asyncio.wait({proof}, timeout=seconds or admission.HOLD_SECONDS)
            if not done:
                raise UpstreamUnavailable(
                    f"this replica has just started and still verifies {self.version}; try again"
                )
            proof.result()
        self.require_sound()

    def begin_proof(self, fastapi_app: Any) -> asyncio.Task[None]:
        """The one that is under way, if there is one."""
        if self._proof is None or self._proof.done():
            self._proof = asyncio.create_task(self._prove(fastapi_app))
            # At a start nobody may wait for it; an error that may pass is met by the next try.
            self._proof.add_done_callback(lambda proof: proof.cancelled() or proof.exception())
        return self._proof

    async def _prove(self, fastapi_app: Any) -> None:
        """Verify what the engine read at its start; if it does not serve that, go out of service.

        Raises:
            UpstreamUnavailable: the engine did not answer in time; another try may be in time.
        """
        async with self._lock:
            if self._is_proven or self._broken:
                return
            folder = checkpoints.folder_of(self._root, self.version)
            try:
                await asyncio.to_thread(self._require_unchanged, folder)
                await nucleus_install.install(fastapi_app.state.engine_client)
                await self._check_again(fastapi_app, self.version, folder)
            except UpstreamUnavailable:
                raise
            except Exception as error:  # whatever it was, this engine must not answer
                self._broken = f"{self.version} could not be verified ({error})"
                logger.exception("taken out of service")

    def _require_unchanged(self, folder: Path) -> None:
        self._manifest(self.version)
        if self._verified_state != checkpoints.state_of(folder):
            checkpoints.verify(folder, self._committed[self.version])

    def require_sound(self) -> None:
        """
        Raises:
            UpstreamUnavailable: a swap failed and could not be undone.
        """
        if self._broken:
            raise UpstreamUnavailable(f"this replica is out of service: {self._broken}; restart it")

    async def until_idle(self) -> None:
        """Wait for a swap that runs."""
        async with self._lock:
            pass

    def require_ready(self) -> None:
        """
        Raises:
            UpstreamUnavailable: no new request should be sent here now.
        """
        self._readiness.require()
        if self._broken:
            raise UpstreamUnavailable(f"not ready: {readiness.BROKEN}")
        if not self._is_proven:
            raise UpstreamUnavailable(f"not ready: {readiness.STARTING}")

    @property
    def state(self) -> ReplicaState:
        if self._readiness.reason == readiness.LEAVING:
            return ReplicaState.LEAVING
        if self._broken:
            return ReplicaState.BROKEN
        return ReplicaState.SWAPPING if self._readiness.reason else ReplicaState.READY

    @property
    def extra_stop_ids(self) -> list[int]:
        """Ids that end an answer of the loaded version, of which vLLM does not know."""
        return sorted(self._loaded.stop_ids - self._form.at_start.stop_ids)

    async def announce(self, engine: Any) -> str:
        """Tell the engine its version once, and return it."""
        if not self._announced:
            await engine.update_weight_version(self.version)
            self._announced = True
        return self.version

    async def weights(self, fastapi_app: Any) -> dict[str, Any]:
        """Version and per-tensor checksums of what the engine holds, computed now."""
        engine = fastapi_app.state.engine_client
        await self.announce(engine)
        seconds = STEP_SECONDS + self._reading_seconds(self.version)
        async with _within(seconds, f"computing the checksums of {self.version}"):
            checksums = await tensors.checksums(engine)
        return {"version": await engine.get_weight_version(), "checksums": checksums}

    async def activate(
        self,
        fastapi_app: Any,
        version: str,
        committed: str | None = None,
        notice_seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Bring the engine to `version`; if that fails, back to where it was.

        `committed` is the digest of the version's manifest in Postgres. For `notice_seconds`
        requests are taken although the replica says that it is not ready, so that a router
        sees that and holds none of its own.

        Raises:
            CheckpointInvalid, NotFound: before anything was touched.
            UpstreamUnavailable: requests in flight could not be ended, a step of the swap did
                not finish in time, or this replica is out of service.
            SwapFailed: the engine is back on the version before, or stayed there because vLLM
                cannot swap what differs.
        """
        async with self._lock:
            self.require_sound()
            folder = checkpoints.folder_of(self._root, version)
            files = await asyncio.to_thread(self._inspect, folder, committed)
            self._committed[version] = committed
            if version == self.version:
                canary = await self._check_again(fastapi_app, version, folder)
                report = {"canary": canary, "num_ended": 0, "held_seconds": 0.0}
                return {**await self.weights(fastapi_app), **report}
            return await self._replace(fastapi_app, folder, files, notice_seconds)

    async def _replace(
        self, fastapi_app: Any, folder: Path, files: _Files, notice_seconds: float
    ) -> dict[str, Any]:
        previous = self.version
        before = self._tensors or await self._look(fastapi_app, await self.weights(fastapi_app))
        with self._readiness.withheld():
            await asyncio.sleep(notice_seconds)
            closing = time.monotonic()
            async with self._admission.closed(self._drain_seconds) as num_ended:
                canary = await self._swap(fastapi_app, folder, files, before)
            held_seconds = time.monotonic() - closing
        weights = await self._weights_or_back(fastapi_app, previous)
        self._tensors = await self._look(fastapi_app, weights)
        return {**weights, "canary": canary, "num_ended": num_ended, "held_seconds": held_seconds}

    async def _weights_or_back(self, fastapi_app: Any, previous: str) -> dict[str, Any]:
        """What the engine holds after a swap. One that cannot say it goes back, since whoever
        asked for the swap is told that it failed."""
        try:
            return await self.weights(fastapi_app)
        except Exception as error:
            with self._readiness.withheld():
                async with self._admission.closed(self._drain_seconds):
                    await self._restore(fastapi_app, previous, "a swap could not be undone")
            raise SwapFailed(f"no checksums after a swap: {error}; back on {previous}") from error

    def _inspect(self, folder: Path, committed: str | None) -> _Files:
        """Verify the files and the model in them."""
        checkpoints.read_manifest(folder)  # tells a missing folder first
        state = checkpoints.state_of(folder)
        self._manifests[folder.name] = checkpoints.verify(folder, committed)
        servable.require_servable(folder, self._form)
        canaries.read(folder)
        return _Files(state, read_at_start(folder))

    async def _check_again(self, fastapi_app: Any, version: str, folder: Path) -> dict[str, Any]:
        """The canaries of the version that is loaded; where they fail, it is loaded anew."""
        canary = await self._compare_canaries(fastapi_app, folder)
        if canaries.agrees(canary):
            self._is_proven = True
            return canary
        logger.error("%s; loading it again", canaries.mismatch(folder, canary))
        with self._readiness.withheld():
            async with self._admission.closed(self._drain_seconds):
                otherwise = f"{version} could not be mended"
                canary = await self._restore(fastapi_app, version, otherwise)
        self.require_sound()
        return canary

    async def _swap(
        self, fastapi_app: Any, folder: Path, files: _Files, before: Tensors
    ) -> dict[str, Any]:
        version, previous, started = folder.name, self.version, time.monotonic()
        try:
            await self._load(fastapi_app, version, folder, files.at_start)
            checkpoints.require_state(folder, files.state)
            await self._require_change(fastapi_app, folder, previous, before)
            canary = await self._check_canaries(fastapi_app, folder)
        except Exception as error:
            telemetry.SWAPS.labels("failed").inc()
            await self._restore(fastapi_app, previous, "a failed swap could not be undone")
            if isinstance(error, RewardloopError):
                raise
            raise SwapFailed(
                f"{version} could not be loaded: {error}; still on {previous}"
            ) from error
        self._is_proven = True
        telemetry.SWAPS.labels("succeeded").inc()
        telemetry.SWAP_SECONDS.observe(time.monotonic() - started)
        return canary

    async def _require_change(
        self, fastapi_app: Any, folder: Path, previous: str, before: Tensors
    ) -> None:
        """
        Raises:
            SwapFailed: the files differ and no tensor does.
        """
        of_previous, of_new = (self._manifest(name) for name in (previous, folder.name))
        if tensors.weight_digests(of_previous) == tensors.weight_digests(of_new):
            return
        sampled = await self._samples(fastapi_app)
        if await tensors.are_as_before(before, sampled, lambda: self.weights(fastapi_app)):
            raise SwapFailed(
                f"after loading {folder.name} every tensor is as it was under {previous}: the "
                "engine serves stale weights, or the update is too small for its dtype to hold"
            )

    async def _look(self, fastapi_app: Any, weights: dict[str, Any]) -> Tensors:
        return Tensors(weights["checksums"], await self._samples(fastapi_app))

    async def _samples(self, fastapi_app: Any) -> list[dict[str, str]]:
        async with _within(STEP_SECONDS, "looking at the tensors"):
            return await tensors.samples(fastapi_app.state.engine_client)

    async def _load(
        self, fastapi_app: Any, version: str, folder: Path, at_start: ReadAtStart
    ) -> None:
        engine = fastapi_app.state.engine_client
        self._tensors = None
        seconds = LOAD_SECONDS + self._reading_seconds(version)
        async with _within(seconds, f"loading {version}"):
            await engine.pause_generation(mode="wait", clear_cache=True)
            try:
                await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
                await engine.collective_rpc("pack_shared_heads")  # see worker_extension
                await engine.update_weight_version(version)
            finally:
                await engine.resume_generation()
        self.version = version
        self._loaded = at_start

    async def _restore(self, fastapi_app: Any, version: str, otherwise: str) -> dict[str, Any]:
        """Load `version` and return its canaries, or go out of service: `otherwise` says why."""
        folder = checkpoints.folder_of(self._root, version)
        try:
            await asyncio.to_thread(checkpoints.verify, folder, self._committed.get(version))
            at_start = await asyncio.to_thread(read_at_start, folder)
            await self._load(fastapi_app, version, folder, at_start)
            canary = await self._check_canaries(fastapi_app, folder)
            self._is_proven = True
            return canary
        except Exception as error:  # whatever it was, this engine must not answer
            self._broken = f"{otherwise} ({error})"
            logger.exception("taken out of service")
            return {}

    def _reading_seconds(self, version: str) -> float:
        """What the size of a version's files adds to the time that a step may take."""
        files = self._manifest(version)["files"].values()
        num_bytes: int = sum(file["size"] for file in files)
        return num_bytes / BYTES_PER_SECOND

    def _manifest(self, version: str) -> dict[str, Any]:
        if version not in self._manifests:
            folder = checkpoints.folder_of(self._root, version)
            self._manifests[version] = checkpoints.read_manifest(folder)
        return self._manifests[version]

    async def _check_canaries(self, fastapi_app: Any, folder: Path) -> dict[str, Any]:
        canary = await self._compare_canaries(fastapi_app, folder)
        if not canaries.agrees(canary):
            raise SwapFailed(canaries.mismatch(folder, canary))
        return canary

    async def _compare_canaries(self, fastapi_app: Any, folder: Path) -> dict[str, Any]:
        """How far the engine's log-probabilities are from the trainer's."""
        wanted, bound = canaries.read(folder)
        async with _within(STEP_SECONDS, f"asking for the canaries of {folder.name}"):
            engine = await asyncio.gather(
                *(self._engine_logprobs(fastapi_app, canary) for canary in wanted)
            )
        return canaries.compared(wanted, engine, bound)

    async def _engine_logprobs(self, fastapi_app: Any, canary: dict[str, Any]) -> list[float]:
        return await canaries.ask(self._app, fastapi_app, canary, STEP_SECONDS)


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncIterator[None]:
    """
    Raises:
        UpstreamUnavailable: the block took longer; another try may be in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamUnavailable(f"{what} took longer than {seconds:.0f} s") from error
