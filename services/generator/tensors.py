"""Whether a reload changed what an engine holds.

Other files must mean other tensors, or the reload did nothing (vllm issue 32718), which canaries
alone cannot tell where an update is small. vLLM's checksums read every byte, which is too long
for a pause; `samples` read the beginning of each tensor, which nearly every update changes.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tensors:
    """Digests of what is loaded."""

    checksums: dict[str, str]
    samples: list[dict[str, str]]
    """By worker."""


async def checksums(engine: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for of_worker in await engine.compute_weight_checksums():
        found.update(of_worker)
    return found


async def samples(engine: Any) -> list[dict[str, str]]:
    """See `worker_extension`."""
    found: list[dict[str, str]] = await engine.collective_rpc("sample_weights")
    return found


async def are_as_before(
    before: Tensors, sampled: list[dict[str, str]], whole: Callable[[], Awaitable[dict[str, str]]]
) -> bool:
    """`whole` computes every checksum, and is asked where the samples tell nothing."""
    return sampled == before.samples and await whole() == before.checksums


def weight_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of each file of weights."""
    files: dict[str, dict[str, Any]] = manifest["files"]
    return {name: f["sha256"] for name, f in files.items() if name.endswith(".safetensors")}
