"""The full weights in an engine: loaded in place, and seen to have changed.

Knows nothing of verified files or canaries; one load at a time.
"""

from pathlib import Path
from typing import Any

from rewardloop.errors import SwapFailed
from services.generator import deadlines, tensors
from services.generator.candidate import Weights
from services.generator.deadlines import within
from services.generator.tensors import Tensors


class HeldWeights:
    """Knows which full weights an engine holds."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        """What was loaded last, or begun to be."""
        self._is_whole = True
        self._checksums: dict[str, str] | None = None
        self._tensors: Tensors | None = None
        """Both None where they were not looked at since something was loaded."""
        self._announced = False

    def are(self, weights: Weights) -> bool:
        return self._is_whole and self.weights == weights

    async def announce(self, engine: Any) -> None:
        """Tell the engine once which weights it holds."""
        if not self._announced:
            await engine.update_weight_version(self.weights.name)
            self._announced = True

    async def load(self, engine: Any, weights: Weights, folder: Path, version: str) -> None:
        """Have the engine read `weights` from `folder`, for the sake of `version`."""
        self._checksums = self._tensors = None
        self._is_whole, self.weights = False, weights
        seconds = deadlines.LOAD_SECONDS + deadlines.reading_seconds(weights.num_bytes)
        async with within(seconds, f"loading {version}"):
            await engine.pause_generation(mode="wait", clear_cache=True)
            try:
                await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
                await engine.collective_rpc("pack_shared_heads")  # see worker_extension
                await engine.update_weight_version(weights.name)
            finally:
                await engine.resume_generation()
        self._is_whole = self._announced = True

    async def checksums(self, engine: Any) -> dict[str, str]:
        """By tensor, computed now."""
        await self.announce(engine)
        seconds = deadlines.STEP_SECONDS + deadlines.reading_seconds(self.weights.num_bytes)
        async with within(seconds, f"computing the checksums of {self.weights.name}"):
            self._checksums = await tensors.checksums(engine)
        return dict(self._checksums)

    async def look(self, engine: Any) -> Tensors:
        """What is loaded, for `require_change`; looked at once after a load."""
        if self._tensors is None:
            checksums = self._checksums or await self.checksums(engine)
            self._tensors = Tensors(checksums, await self._samples(engine))
        return self._tensors

    async def require_change(self, engine: Any, previous: Weights, before: Tensors) -> None:
        """
        Raises:
            SwapFailed: the files are others than those of `previous`, and no tensor is.
        """
        if previous.digests == self.weights.digests:
            return
        sampled = await self._samples(engine)
        if await tensors.are_as_before(before, sampled, lambda: self.checksums(engine)):
            raise SwapFailed(
                f"after loading {self.weights.name} every tensor is as it was under "
                f"{previous.name}: the engine serves stale weights, or the update is too small "
                "for its dtype to hold"
            )

    async def _samples(self, engine: Any) -> list[dict[str, str]]:
        async with within(deadlines.STEP_SECONDS, "looking at the tensors"):
            return await tensors.samples(engine)
