"""The Celery tasks: shells of a few lines that hold no logic."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import uvloop
from celery import Celery

from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.queue import make_app
from rewardloop.store import Store
from rewardloop.store.outbox import ADVANCE, ASSESS, EVALUATE, PROMPTS, ROLLOUT
from services.worker import advance, assess, evaluate, prompts, rollout
from services.worker.named_work import name_messages, work_named

logger = logging.getLogger("rewardloop.worker")

Work = Callable[[Store, Celery, Settings, UUID], Coroutine[Any, Any, None]]
WORK: dict[str, Work] = {
    ROLLOUT: rollout.run,
    PROMPTS: prompts.run,
    ASSESS: assess.run,
    EVALUATE: evaluate.run,
    ADVANCE: advance.run,
}
"""What each task does for the iteration or the evaluation that its message names."""


def bind(settings: Settings) -> Celery:
    """The Celery app with its tasks, on one event loop and one store."""
    name_messages()
    app = make_app(settings)
    store = Store(settings.database_url.get_secret_value())
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    async def told(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except RewardloopError as error:
            # Recorded where it can be; the reconciler brings the work back.
            logger.error("%s: %s", name, error.message, extra={"fields": error.problem()})

    def on_subject(name: str, work: Work) -> None:
        async def named(subject_id: UUID) -> None:
            async with work_named(store, name, subject_id):
                await told(work(store, app, settings, subject_id), name)

        def task(subject_id: str) -> None:
            runner.run(named(UUID(subject_id)))

        # Shared ones would be tasks of every other app of the process, with this one's store.
        app.task(name=name, shared=False)(task)

    for name, work in WORK.items():
        on_subject(name, work)

    return app
