"""The hot swap: another version in a running engine, verified before anybody meets it.

Full weights, and adapters that are merged with their base:

    compare the manifest with Postgres' and the files with the manifest -> merge, where there is
    an adapter -> compare the model with the one that the server started with -> say "not ready",
    and go on for so long as a router needs to see it -> hold new requests back -> let those in
    flight finish, or end them -> pause -> reload in place -> set the weight version -> see that
    tensors changed -> compare canaries -> let requests in -> compute every checksum, for the
    report

What needs no pause happens outside of it: files are read, hashed and merged before, and the
checksums of what was loaded are known from the last swap.

An engine that serves adapters needs nothing of this for an adapter of the base that it holds:

    compare manifest and files -> load the adapter beside the others -> compare canaries ->
    answer by it

An engine that has just started is verified too before its first request (`require_proven`). It
starts on full weights, and where an adapter is served goes on to that.

Canaries (see `canaries`) catch an engine that serves stale weights after a reload (vllm issue
32718).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from rewardloop import checkpoints, telemetry
from rewardloop.clients.generator import POLICY
from rewardloop.errors import Conflict, NotFound, RewardloopError, SwapFailed, UpstreamUnavailable
from rewardloop.records import ReplicaState
from services.generator import admission, canaries, deadlines, nucleus_install, readiness
from services.generator.adapters import Adapters
from services.generator.admission import Admission
from services.generator.candidate import Candidate, Loadable
from services.generator.deadlines import within
from services.generator.holding import Holding
from services.generator.readiness import Readiness
from services.generator.tensors import Tensors

DigestOf = Callable[[str], Awaitable[str | None]]
"""What Postgres says of a version's manifest."""
logger = logging.getLogger("rewardloop.generator")


class Swapper:
    """Knows which version the engine answers by. One swap at a time.

    `committed` is the digest of the manifest in Postgres, and `state` what the file system said
    of the folder that the engine read at its start, when the launcher had verified it. Without
    `adapters` the engine merges them.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        root: Path,
        version: str,
        committed: str | None = None,
        state: str | None = None,
        drain_seconds: float = deadlines.DRAIN_SECONDS,
        readiness: Readiness | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self._readiness = readiness or Readiness()
        self._drain_seconds = drain_seconds
        self._admission = admission
        self._root = root
        self.holding = Holding(app, root, version, adapters or Adapters())
        self._committed = {version: committed}
        self._verified_state = state
        self._broken: str | None = None
        self._lock = asyncio.Lock()
        self._is_proven = False
        self._proof: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """The current one, which answers whoever names none."""
        return self.holding.version

    async def weights(self, fastapi_app: Any) -> dict[str, Any]:
        """Version and per-tensor checksums of what the engine answers by, computed now."""
        return await self.holding.weights(fastapi_app)

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
            try:
                await asyncio.to_thread(self._require_unchanged)
                await nucleus_install.install(fastapi_app.state.engine_client)
                if self.version == self.holding.started_on.name:
                    await self._check_again(fastapi_app, self.version)
                else:
                    await self._go_on_to_adapter(fastapi_app)
            except UpstreamUnavailable:
                raise
            except Exception as error:  # whatever it was, this engine must not answer
                self._broken = f"{self.version} could not be verified ({error})"
                logger.exception("taken out of service")

    async def _go_on_to_adapter(self, fastapi_app: Any) -> None:
        """From its base, which the engine has read and which is not read again to serve it."""
        candidate = await self.holding.inspect(self.version, self._committed.get(self.version))
        if not self.holding.holds(candidate):
            await self._load_anew(fastapi_app, self.version)
            return
        await self.holding.have(fastapi_app, candidate, self._drain_seconds)
        self._is_proven = True

    def _require_unchanged(self) -> None:
        folder = self.holding.started_on
        if self._verified_state != checkpoints.state_of(folder):
            checkpoints.verify(folder, self._committed.get(folder.name))

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

    async def activate(
        self,
        fastapi_app: Any,
        version: str,
        committed: str | None = None,
        notice_seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Have `version` answer whoever names none; if that fails, what answered before.

        `committed` is the digest of the version's manifest in Postgres. For `notice_seconds`
        requests are taken although the replica says that it is not ready, so that a router
        sees that and holds none of its own.

        Raises:
            CheckpointInvalid, NotFound: before anything was touched.
            UpstreamUnavailable: requests in flight could not be ended, a step of the swap did
                not finish in time, or this replica is out of service.
            SwapFailed: the engine is back on the version before, or stayed there because vLLM
                cannot swap what differs.
            DiskFull: there is no room to merge an adapter.
        """
        async with self._lock:
            self.require_sound()
            candidate = await self.holding.inspect(version, committed)
            self._committed[version] = committed
            if version == self.version:
                canary = await self._check_again(fastapi_app, version)
                return await self._report(fastapi_app, canary)
            if self.holding.holds(candidate):
                return await self._switch(fastapi_app, candidate)
            async with self.holding.loadable(candidate) as files:
                return await self._replace(fastapi_app, candidate, files, notice_seconds)

    async def have(self, fastapi_app: Any, version: str, committed: DigestOf) -> None:
        """Have `version` answer by its name, beside the current one.

        Raises:
            NotFound: this engine merges adapters, so that it answers by one version alone.
            Conflict: it is no adapter of the base that this engine holds.
            CheckpointInvalid, SwapFailed, UpstreamUnavailable: as for `activate`.
        """
        if self.holding.answers(version):
            return
        if not self.holding.serves_adapters:
            raise NotFound(
                f"this engine answers by one version, {self.version}, and not by {version!r}: ask "
                f"for the model {POLICY!r}, or start it with REWARDLOOP_ADAPTERS=serve"
            )
        # Whoever asked may go; what was begun comes to its end all the same.
        async with within(admission.HOLD_SECONDS, f"loading {version}"):
            await asyncio.shield(self._have_beside(fastapi_app, version, committed))

    async def _have_beside(self, fastapi_app: Any, version: str, committed: DigestOf) -> None:
        async with self._lock:
            if self.holding.answers(version):
                return
            self.require_sound()
            candidate = await self.holding.inspect(version, await committed(version))
            if not self.holding.holds(candidate):
                raise Conflict(
                    f"{version} is no adapter of the base that this engine holds, under "
                    f"{self.version}; activate it first, which swaps the weights"
                )
            await self.holding.have(fastapi_app, candidate, self._drain_seconds)

    async def _report(
        self,
        fastapi_app: Any,
        canary: dict[str, Any],
        num_ended: int = 0,
        held_seconds: float = 0.0,
    ) -> dict[str, Any]:
        told = {"canary": canary, "num_ended": num_ended, "held_seconds": held_seconds}
        return {**await self.weights(fastapi_app), **told}

    async def _switch(self, fastapi_app: Any, candidate: Candidate) -> dict[str, Any]:
        """To another version on the weights that the engine holds: nobody waits."""
        with _counted():
            canary = await self.holding.have(fastapi_app, candidate, self._drain_seconds)
        self.holding.version, self._is_proven = candidate.version, True
        return await self._report(fastapi_app, canary)

    async def _replace(
        self, fastapi_app: Any, candidate: Candidate, files: Loadable, notice_seconds: float
    ) -> dict[str, Any]:
        """Load other full weights, with the candidate's adapter on them where it has one."""
        previous = self.version
        before = await self.holding.look(fastapi_app)
        with self._readiness.withheld():
            await asyncio.sleep(notice_seconds)
            closing = time.monotonic()
            async with self._admission.closed(self._drain_seconds) as num_ended:
                canary = await self._swap(fastapi_app, candidate, files, before)
            held_seconds = time.monotonic() - closing
        try:
            report = await self._report(fastapi_app, canary, num_ended, held_seconds)
            await self.holding.look(fastapi_app)
            return report
        except Exception as error:  # whoever asked for the swap is told that it failed
            with self._readiness.withheld():
                async with self._admission.closed(self._drain_seconds):
                    await self._restore(fastapi_app, previous, "a swap could not be undone")
            raise SwapFailed(f"no checksums after a swap: {error}; back on {previous}") from error

    async def _swap(
        self, fastapi_app: Any, candidate: Candidate, files: Loadable, before: Tensors
    ) -> dict[str, Any]:
        previous, before_it = self.version, self.holding.full_weights
        try:
            with _counted():
                await self.holding.load(fastapi_app, candidate, files)
                await self.holding.require_change(fastapi_app, before_it, before)
                canary = await self.holding.check_canaries(fastapi_app, candidate.folder)
        except Exception as error:
            await self._restore(fastapi_app, previous, "a failed swap could not be undone")
            if isinstance(error, RewardloopError):
                raise
            version = candidate.version
            raise SwapFailed(
                f"{version} could not be loaded: {error}; still on {previous}"
            ) from error
        self._is_proven = True
        return canary

    async def _check_again(self, fastapi_app: Any, version: str) -> dict[str, Any]:
        """The canaries of the version that is loaded; where they fail, it is loaded anew."""
        folder = checkpoints.folder_of(self._root, version)
        canary = await self.holding.compare_canaries(fastapi_app, folder)
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

    async def _restore(self, fastapi_app: Any, version: str, otherwise: str) -> dict[str, Any]:
        """Load `version` and return its canaries, or go out of service: `otherwise` says why."""
        try:
            return await self._load_anew(fastapi_app, version)
        except Exception as error:  # whatever it was, this engine must not answer
            self._broken = f"{otherwise} ({error})"
            logger.exception("taken out of service")
            return {}

    async def _load_anew(self, fastapi_app: Any, version: str) -> dict[str, Any]:
        candidate = await self.holding.inspect(version, self._committed.get(version))
        async with self.holding.loadable(candidate) as files:
            await self.holding.load(fastapi_app, candidate, files)
            canary = await self.holding.check_canaries(fastapi_app, candidate.folder)
        self._is_proven = True
        return canary


@contextmanager
def _counted() -> Iterator[None]:
    """A swap, which the block is from the first step to the canaries."""
    started = time.monotonic()
    try:
        yield
    except Exception:
        telemetry.SWAPS.labels("failed").inc()
        raise
    telemetry.SWAPS.labels("succeeded").inc()
    telemetry.SWAP_SECONDS.observe(time.monotonic() - started)
