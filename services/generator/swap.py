"""The hot swap: new weights in a running engine, verified before anybody meets them.

    compare the manifest with Postgres' and the files with the manifest -> compare the model
    with the one that the server started with -> let requests in flight finish, or end them
    -> pause -> reload in place -> set the weight version -> compare checksums and canaries
    -> let requests in

An engine that has just started is verified too before its first request (`require_proven`).

Canaries catch an engine that serves stale weights after a reload (vllm issue
32718): the per-token log-probabilities of fixed texts are compared with those
that the trainer computed from the published files in the engine's own dtype.
Mean absolute differences are judged, because single bf16 logits differ by
rounding alone.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardloop import checkpoints, servable, telemetry
from rewardloop.errors import (
    CheckpointInvalid,
    RewardloopError,
    SwapFailed,
    UpstreamUnavailable,
)
from rewardloop.servable.at_start import read_at_start
from services.generator import admission, nucleus_install
from services.generator.admission import Admission

logger = logging.getLogger("rewardloop.generator")

DRAIN_SECONDS = 60.0
"""So long a swap waits for requests in flight before it ends them, unless it is told otherwise."""
STEP_SECONDS = 60.0
"""For canaries, and for checksums of the smallest model."""
LOAD_SECONDS = 60.0
"""For loading the smallest model."""
BYTES_PER_SECOND = 100e6
"""What a slow disk gives: a model of so many bytes has a second more in either step."""
CANARY_BOUND = 0.05
"""Mean |difference| of log-probabilities, in nats, that bf16 rounding may cause in any
checkpoint. How it was found: docs/decisions/0004-canaries.md."""
ROUNDING_FACTOR = 1.5
"""Where the trainer measured that rounding does more to a checkpoint, so many times that."""


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
    ) -> None:
        self._app = app
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
        """Version and per-tensor checksums of what the engine holds."""
        engine = fastapi_app.state.engine_client
        await self.announce(engine)
        checksums: dict[str, str] = {}
        seconds = STEP_SECONDS + self._reading_seconds(self.version)
        async with _within(seconds, f"computing the checksums of {self.version}"):
            for of_worker in await engine.compute_weight_checksums():
                checksums.update(of_worker)
        return {"version": await engine.get_weight_version(), "checksums": checksums}

    async def activate(
        self, fastapi_app: Any, version: str, committed: str | None = None
    ) -> dict[str, Any]:
        """Bring the engine to `version`; if that fails, back to where it was.

        `committed` is the digest of the version's manifest in Postgres.

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
            state = await asyncio.to_thread(self._inspect, folder, committed)
            self._committed[version] = committed
            if version == self.version:
                canary = await self._check_again(fastapi_app, version, folder)
                return {**await self.weights(fastapi_app), "canary": canary, "num_ended": 0}
            async with self._admission.closed(self._drain_seconds) as num_ended:
                canary = await self._swap(fastapi_app, version, folder, state)
            report = {"canary": canary, "num_ended": num_ended}
            return {**await self.weights(fastapi_app), **report}

    def _inspect(self, folder: Path, committed: str | None) -> str:
        """Verify the files and the model in them; returns their state meanwhile."""
        checkpoints.read_manifest(folder)  # tells a missing folder first
        state = checkpoints.state_of(folder)
        self._manifests[folder.name] = checkpoints.verify(folder, committed)
        servable.require_servable(folder, self._form)
        _read_canaries(folder)
        return state

    async def _check_again(self, fastapi_app: Any, version: str, folder: Path) -> dict[str, Any]:
        """The canaries of the version that is loaded; where they fail, it is loaded anew."""
        canary = await self._compare_canaries(fastapi_app, folder)
        if _agrees(canary):
            self._is_proven = True
            return canary
        logger.error("%s; loading it again", _mismatch(folder, canary))
        async with self._admission.closed(self._drain_seconds):
            canary = await self._restore(fastapi_app, version, f"{version} could not be mended")
        self.require_sound()
        return canary

    async def _swap(
        self, fastapi_app: Any, version: str, folder: Path, state: str
    ) -> dict[str, Any]:
        previous, started = self.version, time.monotonic()
        before = await self.weights(fastapi_app)
        try:
            await self._load(fastapi_app, version, folder)
            checkpoints.require_state(folder, state)
            after = await self.weights(fastapi_app)
            self._require_change(folder, previous, before["checksums"] == after["checksums"])
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

    def _require_change(self, folder: Path, previous: str, unchanged: bool) -> None:
        """Other files must mean other tensors, or the reload did nothing."""
        of_previous, of_new = self._manifest(previous), self._manifest(folder.name)
        if unchanged and _weight_digests(of_previous) != _weight_digests(of_new):
            raise SwapFailed(
                f"after loading {folder.name} every tensor is as it was under {previous}: the "
                "engine serves stale weights, or the update is too small for its dtype to hold"
            )

    async def _load(self, fastapi_app: Any, version: str, folder: Path) -> None:
        engine = fastapi_app.state.engine_client
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
        self._loaded = await asyncio.to_thread(read_at_start, folder)

    async def _restore(self, fastapi_app: Any, version: str, otherwise: str) -> dict[str, Any]:
        """Load `version` and return its canaries, or go out of service: `otherwise` says why."""
        folder = checkpoints.folder_of(self._root, version)
        try:
            await asyncio.to_thread(checkpoints.verify, folder, self._committed.get(version))
            await self._load(fastapi_app, version, folder)
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
        if not _agrees(canary):
            raise SwapFailed(_mismatch(folder, canary))
        return canary

    async def _compare_canaries(self, fastapi_app: Any, folder: Path) -> dict[str, Any]:
        """How far the engine's log-probabilities are from the trainer's, in nats a token."""
        canaries, bound = _read_canaries(folder)
        async with _within(STEP_SECONDS, f"asking for the canaries of {folder.name}"):
            engine = await asyncio.gather(
                *(self._engine_logprobs(fastapi_app, canary) for canary in canaries)
            )
        differences = [
            abs(here - there)
            for canary, logprobs in zip(canaries, engine, strict=True)
            for here, there in zip(logprobs, canary["logprobs"], strict=True)
        ]
        return {
            "mean_difference": sum(differences) / len(differences),
            "max_difference": max(differences),
            "bound": bound,
            "num_tokens": len(differences),
        }

    async def _engine_logprobs(self, fastapi_app: Any, canary: dict[str, Any]) -> list[float]:
        """Log-probability, in nats, of each continuation token given what stands before it."""

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app({**scope, "app": fastapi_app}, receive, send)

        tokens = canary["prompt_token_ids"] + canary["continuation_token_ids"]
        request = {
            "model": "policy",
            "prompt": tokens,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        transport = httpx.ASGITransport(app=inner)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            answer = await client.post("/v1/completions", json=request, timeout=STEP_SECONDS)
        if not answer.is_success:
            raise SwapFailed(f"the engine does not answer canaries: {answer.text[:300]}")
        positions = answer.json()["choices"][0]["prompt_logprobs"]
        start = len(canary["prompt_token_ids"])
        return [
            float(position[str(token)]["logprob"])
            for position, token in zip(positions[start:], tokens[start:], strict=True)
        ]


def _agrees(canary: dict[str, Any]) -> bool:
    """NaN agrees with nothing."""
    return bool(canary["mean_difference"] <= canary["bound"])


def _mismatch(folder: Path, canary: dict[str, Any]) -> str:
    return (
        f"{folder.name}: the engine's log-probabilities differ from the trainer's by "
        f"{canary['mean_difference']:.4f} nats a token (bound {canary['bound']:.4f}): it does not "
        "serve these weights"
    )


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


def _weight_digests(manifest: dict[str, Any]) -> dict[str, str]:
    files: dict[str, dict[str, Any]] = manifest["files"]
    return {name: f["sha256"] for name, f in files.items() if name.endswith(".safetensors")}


def _read_canaries(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """The canaries, and the mean difference in nats that rounding may cause in them."""
    path = folder / checkpoints.CANARIES
    if not path.is_file():
        raise CheckpointInvalid(f"{folder.name} has no {checkpoints.CANARIES}; publish it again")
    try:
        document = json.loads(path.read_text())
        canaries: list[dict[str, Any]] = document["canaries"]
        rounding = float(document.get("rounding_nats", 0.0))  # older checkpoints do not say
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointInvalid(
            f"{folder.name}: {checkpoints.CANARIES} cannot be read; publish it again"
        ) from error
    if not canaries:
        raise CheckpointInvalid(f"{folder.name} has no canaries; publish it again")
    return canaries, max(CANARY_BOUND, ROUNDING_FACTOR * rounding)
