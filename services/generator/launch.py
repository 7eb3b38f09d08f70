"""Which checkpoint an engine begins with. Runs before the server; the gate does not know it."""

import asyncio
import os
from pathlib import Path

from rewardloop import checkpoints
from rewardloop.config import Settings
from rewardloop.store import Store, versions
from services.generator import gate


def initial_checkpoint(settings: Settings) -> Path:
    """The verified folder of the version that is being served; the gate's environment names it.

    Raises:
        NotFound: no version is served yet, or its folder is not there.
        CheckpointInvalid: its files differ from their manifest.
    """
    version = asyncio.run(_serving_version(settings))
    folder = checkpoints.folder_of(settings.checkpoint_root, version)
    checkpoints.verify(folder)
    os.environ[gate.INITIAL_VERSION] = version
    return folder


async def _serving_version(settings: Settings) -> str:
    store = Store(settings.database_url.get_secret_value())
    async with store.transaction() as session:
        version = await versions.require_serving(session)
    await store.close()
    return version
