"""Which iteration, run and version a worker's log lines are about."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from rewardloop import telemetry
from rewardloop.errors import RewardloopError
from rewardloop.store import Store, evaluations, iterations
from rewardloop.store.outbox import EVALUATE

_CELERY = ("celery.app.trace", "celery.worker.strategy", "celery.worker.request")
_SUBJECT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@asynccontextmanager
async def work_named(store: Store, task: str, subject_id: UUID) -> AsyncIterator[None]:
    """Lines that are logged in the block carry the ids of the task's subject. What cannot be
    looked up is left out: the task itself meets the same error, and tells it."""
    with telemetry.work_fields(**{_kind(task): subject_id}):
        try:
            fields = await _looked_up(store, task, subject_id)
        except RewardloopError:
            fields = {}
        with telemetry.work_fields(**fields):
            yield


def _kind(task: str) -> str:
    return "evaluation" if task == EVALUATE else "iteration"


async def _looked_up(store: Store, task: str, subject_id: UUID) -> dict[str, object]:
    """The version is the one that is being made or checked, or else the one that answers."""
    async with store.transaction() as session:
        if task == EVALUATE:
            evaluation = await evaluations.get(session, subject_id)
            return {"run": evaluation.run_id}
        iteration = await iterations.get(session, subject_id)
    version = iteration.new_version_id or iteration.base_version_id
    return {"run": iteration.run_id, "version": version}


def name_messages() -> None:
    """Celery's own lines about a task (received, succeeded, raised) carry its subject's id; it
    logs them outside of the task."""
    for name in _CELERY:
        logger = logging.getLogger(name)
        if _name_message not in logger.filters:
            logger.addFilter(_name_message)


def _name_message(record: logging.LogRecord) -> bool:
    about = getattr(record, "data", None) or (record.args if isinstance(record.args, dict) else {})
    found = _SUBJECT.search(str(about.get("args", "")))
    if found and not hasattr(record, "fields"):
        record.fields = {_kind(str(about.get("name", ""))): found[0]}
    return True
