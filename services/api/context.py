"""What every route gets: the store, and a way to send what the outbox holds."""

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from celery import Celery
from fastapi import Depends, Path, Request
from pydantic import AfterValidator, Field

from rewardloop.config import Settings
from rewardloop.datasets.names import DATASET_NAME
from rewardloop.errors import UpstreamUnavailable
from rewardloop.queue import relay
from rewardloop.store import Store
from rewardloop.texts import check_storable

logger = logging.getLogger("rewardloop.api")


@dataclass(frozen=True)
class Context:
    store: Store
    celery: Celery
    settings: Settings
    settled: dict[UUID, tuple[datetime, dict[str, Any]]] = field(default_factory=dict)
    """When iterations ended, and their progress: it changes no more unless they go on."""

    async def relay(self) -> None:
        """Send at once what was committed; a broker that is down costs time only."""
        try:
            await relay(self.store, self.celery)
        except UpstreamUnavailable as error:
            logger.warning("%s; the reconciler will send it", error.message)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]
Storable = Annotated[
    str, AfterValidator(check_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
]
"""A text that Postgres can hold; another one is answered with 422."""
DatasetName = Annotated[str, Path(pattern=DATASET_NAME)]
