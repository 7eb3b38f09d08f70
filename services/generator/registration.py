"""Tells Postgres that this replica is there: where, on which version, in which state.

It joins once what it loaded is verified and is the version that is served, and is not ready
before. A replica that others held for dead, say because it did not reach Postgres, joins again
the same way: they may serve another version by now.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any
from uuid import uuid4

from rewardloop import checkpoints
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.records import ReplicaState
from rewardloop.store import Store, replicas, versions
from rewardloop.store.replicas import HEARTBEAT_SECONDS, Standing
from services.generator.readiness import JOINING, Readiness
from services.generator.swap import Swapper

LEAVE_SECONDS = 2.0
logger = logging.getLogger("rewardloop.generator")


class Registration:
    """Does nothing where the settings name no `replica_url`."""

    def __init__(self, settings: Settings, swapper: Swapper, readiness: Readiness) -> None:
        self._settings = settings
        self._swapper = swapper
        self._readiness = readiness
        self._instance = uuid4()
        self._task: asyncio.Task[None] | None = None

    def begin(self, fastapi_app: Any) -> None:
        """Once the server can answer."""
        if self._settings.replica_url is not None:
            self._task = asyncio.create_task(self._keep(fastapi_app))

    async def end(self) -> None:
        """Nobody waits for a heartbeat of a replica that has left."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, fastapi_app: Any) -> None:
        store = Store(self._settings.database_url.get_secret_value(), pool_size=1)
        try:
            while True:
                with self._readiness.withheld(JOINING):
                    while not await self._survives(self._has_joined(store, fastapi_app)):
                        await asyncio.sleep(HEARTBEAT_SECONDS / 2)
                await self._beat_while_known(store)
        finally:
            with suppress(RewardloopError, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS), store.transaction() as session:
                    await replicas.leave(session, self._standing(ReplicaState.LEAVING))
            await store.close()

    async def _beat_while_known(self, store: Store) -> None:
        while await self._survives(self._beat(store), otherwise=True):
            await self._readiness.changed(HEARTBEAT_SECONDS)

    async def _beat(self, store: Store) -> bool:
        async with store.transaction() as session:
            return await replicas.beat(session, self._standing(self._swapper.state))

    async def _has_joined(self, store: Store, fastapi_app: Any) -> bool:
        await self._swapper.require_proven(fastapi_app)
        async with store.transaction() as session:
            wanted = await replicas.join(session, self._standing(ReplicaState.READY))
            if wanted is None:
                return True
            digest = checkpoints.digest_of((await versions.get(session, wanted)).manifest)
        logger.info("%s is served by now: loading it before joining", wanted)
        await self._swapper.activate(fastapi_app, wanted, digest)
        return False

    async def _survives(self, step: Any, *, otherwise: bool = False) -> bool:
        """What the step returns, or `otherwise` where it failed: the next one may do better."""
        try:
            return bool(await step)
        except RewardloopError as error:
            logger.warning("registering as a replica: %s", error.message)
        except Exception:
            logger.exception("registering as a replica failed; tried again")
        return otherwise

    def _standing(self, state: ReplicaState) -> Standing:
        control = self._settings.replica_url or ""
        data = self._settings.replica_data_url or control
        return Standing(
            _with_hostname(control),
            _with_hostname(data),
            self._instance,
            self._swapper.version,
            state,
        )


def _with_hostname(url: str) -> str:
    return url.replace("{hostname}", socket.gethostname()).rstrip("/")
