"""The Celery tasks: shells of a few lines that hold no logic."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from celery import Celery

from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.queue import make_app
from rewardloop.queue_names import ADVANCE, RECONCILE, ROLLOUT
from rewardloop.store import Store
from services.worker import advance, reconcile, rollout

logger = logging.getLogger("rewardloop.worker")


def bind(settings: Settings) -> Celery:
    """The Celery app with its tasks, on one event loop and one store."""
    app = make_app(settings)
    store = Store(settings.database_url.get_secret_value())
    runner = asyncio.Runner()

    def shell(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            runner.run(work)
        except RewardloopError as error:
            # Recorded where it can be; the reconciler brings the work back.
            logger.error("%s: %s", name, error.message, extra={"fields": error.problem()})

    @app.task(name=ROLLOUT)  # type: ignore[untyped-decorator]
    def roll_out(iteration_id: str) -> None:
        shell(rollout.run(store, app, settings, UUID(iteration_id)), ROLLOUT)

    @app.task(name=ADVANCE)  # type: ignore[untyped-decorator]
    def advance_iteration(iteration_id: str) -> None:
        shell(advance.run(store, app, settings, UUID(iteration_id)), ADVANCE)

    @app.task(name=RECONCILE)  # type: ignore[untyped-decorator]
    def reconcile_all() -> None:
        shell(reconcile.run(store, app), RECONCILE)

    return app
