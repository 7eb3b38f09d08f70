"""A version as it is verified before an engine is touched, and the folder that is loaded for it.

Full weights are loaded from the version's own folder. An adapter is served on its base where the
engine serves adapters; elsewhere base and adapter are merged into a scratch folder, which is gone
once it was loaded. What an engine loads is checked as a model, whatever it was made of.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewardloop import checkpoints, merging, servable
from rewardloop.servable.at_start import ReadAtStart, read_at_start
from services.generator import canaries, tensors
from services.generator.scratch import Scratch


@dataclass(frozen=True)
class Weights:
    """Full weights that an engine holds, or shall hold."""

    name: str
    """The version by which they are known: merged, the adapter's; under adapters, the base's."""
    digests: dict[str, str]
    """sha256 of each file of weights that they are made of."""
    num_bytes: int
    """On the disk, with all other files of their version."""


@dataclass(frozen=True)
class Candidate:
    """A version whose own files are sound, and those that Postgres knows."""

    folder: Path
    """The version's own, with its canaries, and its adapter where it has one."""
    base: Path | None
    """The folder of the full weights under the adapter; None for full weights."""
    is_served_on_base: bool
    state: str
    """What the file system said of the version's folder, and its base's, before it was
    verified."""
    weights: Weights

    @property
    def version(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Loadable:
    """Full weights on the disk, verified."""

    folder: Path
    state: str
    """Equal after they were loaded, or something wrote to the folder meanwhile."""
    at_start: ReadAtStart


def inspect(
    root: Path, version: str, committed: str | None, form: servable.Form, *, on_base: bool
) -> Candidate:
    """Verify the files of `version`, and that its adapter goes with its base and `form`. Full
    weights, its own or its base's, are looked at as a model when they are loaded.

    `committed` is the digest of its manifest in Postgres; `on_base` says whether the engine
    serves adapters on their base.

    Raises:
        CheckpointInvalid: they are not those that were published.
        NotFound: there is no such version, or its base is gone.
    """
    folder = checkpoints.folder_of(root, version)
    checkpoints.read_manifest(folder)  # tells a missing folder first
    state = checkpoints.state_of(folder)
    manifest = checkpoints.verify(folder, committed, with_base=False)
    canaries.read(folder)
    base = checkpoints.base_of(root, version)
    if base is None:
        return Candidate(folder, None, False, state, weights_of(manifest))
    servable.require_servable(folder, form)
    under = weights_of(checkpoints.read_manifest(checkpoints.folder_of(root, base)))
    merged = replace(weights_of(manifest), num_bytes=under.num_bytes)
    weights = under if on_base else merged
    return Candidate(folder, root / base, on_base, state, weights)


def weights_of(manifest: Mapping[str, Any]) -> Weights:
    num_bytes: int = sum(file["size"] for file in manifest["files"].values())
    return Weights(manifest["version"], tensors.weight_digests(manifest), num_bytes)


@asynccontextmanager
async def loadable(candidate: Candidate, form: servable.Form) -> AsyncIterator[Loadable]:
    """The full weights that an engine loads for `candidate`, for as long as the block runs.

    Raises:
        CheckpointInvalid, SwapFailed: they are no model that goes with `form`.
        DiskFull: there is no room for the merged weights.
    """
    if candidate.base is None or candidate.is_served_on_base:
        yield await asyncio.to_thread(_published, candidate, form)
        return
    scratch = Scratch(candidate.folder.parent)
    try:
        yield await asyncio.to_thread(_merged, candidate, candidate.base, scratch.folder, form)
    finally:
        await asyncio.to_thread(scratch.remove)


def _published(candidate: Candidate, form: servable.Form) -> Loadable:
    """The version's own, or its base's where an adapter is served on it."""
    folder = candidate.base or candidate.folder
    state = candidate.state
    if candidate.base is not None:
        state = checkpoints.state_of(folder)
        checkpoints.verify(folder)
    return _model(folder, state, form)


def _merged(candidate: Candidate, base: Path, scratch: Path, form: servable.Form) -> Loadable:
    checkpoints.verify(base)
    folder = scratch / candidate.version
    merging.merge(candidate.folder.parent, candidate.version, folder)
    checkpoints.require_state(candidate.folder, candidate.state)
    return _model(folder, checkpoints.state_of(folder), form)


def _model(folder: Path, state: str, form: servable.Form) -> Loadable:
    servable.require_servable(folder, form)
    return Loadable(folder, state, read_at_start(folder))
