"""Which checkpoint an engine begins with. Runs before the server; the gate does not know it."""

import asyncio
import os
from pathlib import Path

from rewardloop import checkpoints, servable
from rewardloop.config import Settings
from services.generator import committed, gate


def initial_checkpoint(settings: Settings) -> Path:
    """The verified folder of the full weights that the engine starts on: those of the version that
    is being served, or of its base, from which the gate goes on to the version.

    The gate's environment names the version, with what the gate needs to see whether the folder
    changed while the engine read it.

    Raises:
        NotFound: no version is served yet, or its folder is not there.
        CheckpointInvalid: its files differ from their manifest, the manifest from the one in
            Postgres, or they are no model that may be served.
    """
    version, digest = asyncio.run(committed.serving(settings))
    folder = checkpoints.folder_of(settings.checkpoint_root, version)
    checkpoints.verify(folder, digest)
    weights = servable.effective_folder(folder)
    state = checkpoints.state_of(weights)
    servable.require_sound(folder)
    os.environ[gate.INITIAL_VERSION] = version
    os.environ[gate.INITIAL_MANIFEST] = digest or ""
    os.environ[gate.INITIAL_STATE] = state
    return weights
