"""The hot swap: new weights in a running engine, verified before anybody meets them.

    verify the manifest -> let requests in flight finish -> pause -> reload in place
    -> set the weight version -> compare checksums and canaries -> let requests in

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

from rewardloop import checkpoints, telemetry
from rewardloop.errors import CheckpointInvalid, RewardloopError, SwapFailed, UpstreamUnavailable
from services.generator.admission import Admission
from services.generator.read_at_start import read_at_start, require_same

logger = logging.getLogger("rewardloop.generator")

DRAIN_SECONDS = 120.0
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
    """Knows which version the engine holds. One swap at a time."""

    def __init__(self, app: ASGIApp, admission: Admission, root: Path, version: str) -> None:
        self._app = app
        self._admission = admission
        self._root = root
        self.version = version
        self._started = version
        self._started_with = read_at_start(checkpoints.folder_of(root, version))
        self._loaded = self._started_with
        self._announced = False
        self._broken: str | None = None
        self._lock = asyncio.Lock()

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
        return sorted(self._loaded.stop_ids - self._started_with.stop_ids)

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

    async def activate(self, fastapi_app: Any, version: str) -> dict[str, Any]:
        """Bring the engine to `version`; if that fails, back to where it was.

        Raises:
            CheckpointInvalid, NotFound: before anything was touched.
            UpstreamUnavailable: requests in flight, or a step of the swap, did not finish in
                time, or this replica is out of service.
            SwapFailed: the engine is back on the version before, or stayed there because vLLM
                cannot swap what differs.
        """
        async with self._lock:
            self.require_sound()
            folder = checkpoints.folder_of(self._root, version)
            await asyncio.to_thread(checkpoints.verify, folder)
            if version == self.version:
                canary = await self._check_again(fastapi_app, version, folder)
                return {**await self.weights(fastapi_app), "canary": canary}
            new = await asyncio.to_thread(read_at_start, folder)
            require_same(self._started_with, self._started, new, version)
            async with self._admission.closed(DRAIN_SECONDS):
                canary = await self._swap(fastapi_app, version, folder)
            return {**await self.weights(fastapi_app), "canary": canary}

    async def _check_again(self, fastapi_app: Any, version: str, folder: Path) -> dict[str, Any]:
        """The canaries of the version that is loaded; where they fail, it is loaded anew."""
        canary = await self._compare_canaries(fastapi_app, folder)
        if _agrees(canary):
            return canary
        logger.error("%s; loading it again", _mismatch(folder, canary))
        async with self._admission.closed(DRAIN_SECONDS):
            canary = await self._restore(fastapi_app, version, f"{version} could not be mended")
        self.require_sound()
        return canary

    async def _swap(self, fastapi_app: Any, version: str, folder: Path) -> dict[str, Any]:
        previous, started = self.version, time.monotonic()
        before = await self.weights(fastapi_app)
        try:
            await self._load(fastapi_app, version, folder)
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
        telemetry.SWAPS.labels("succeeded").inc()
        telemetry.SWAP_SECONDS.observe(time.monotonic() - started)
        return canary

    def _require_change(self, folder: Path, previous: str, unchanged: bool) -> None:
        """Other files must mean other tensors, or the reload did nothing."""
        of_previous = checkpoints.read_manifest(checkpoints.folder_of(self._root, previous))
        of_new = checkpoints.read_manifest(folder)
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
            await self._load(fastapi_app, version, folder)
            return await self._check_canaries(fastapi_app, folder)
        except Exception as error:  # whatever it was, this engine must not answer
            self._broken = f"{otherwise} ({error})"
            logger.exception("taken out of service")
            return {}

    def _reading_seconds(self, version: str) -> float:
        """What the size of a version's files adds to the time that a step may take."""
        manifest = checkpoints.read_manifest(checkpoints.folder_of(self._root, version))
        num_bytes: int = sum(file["size"] for file in manifest["files"].values())
        return num_bytes / BYTES_PER_SECOND

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
    document = json.loads(path.read_text())
    canaries: list[dict[str, Any]] = document["canaries"]
    if not canaries:
        raise CheckpointInvalid(f"{folder.name} has no canaries; publish it again")
    rounding = float(document.get("rounding_nats", 0.0))  # older checkpoints do not say
    return canaries, max(CANARY_BOUND, ROUNDING_FACTOR * rounding)
