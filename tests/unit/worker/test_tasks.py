"""The Celery tasks are shells: which there are, where they run, and what they do with errors."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvloop
from celery import Celery
from pydantic import SecretStr

from rewardloop.config import Settings
from rewardloop.errors import NotFound
from rewardloop.queue import QUEUES
from rewardloop.store import outbox
from services.worker import tasks

SUBJECT = UUID(int=7)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Bound to a database and a broker that nothing here asks."""
    settings = Settings(
        database_url=SecretStr("postgresql+psycopg://me:secret@127.0.0.1:1/none"),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        api_key=SecretStr("api-key-of-the-tests"),
        admin_key=SecretStr("admin-key-of-the-tests"),
        checkpoint_root=tmp_path,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # A worker keeps its own until the process ends.
        monkeypatch.setattr(asyncio, "Runner", lambda loop_factory: runner)
        bound = tasks.bind(settings)
        yield bound
        bound.close()


def test_every_task_has_a_name_that_is_known_and_a_queue(app: Celery) -> None:
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    known = {
        value for name, value in vars(outbox).items() if isinstance(value, str) and name.isupper()
    }
    assert ours == known == set(QUEUES) == {*tasks.WORK}
    assert set(QUEUES.values()) == {"rollout", "control"}  # what the two roles of a worker take


def does(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[UUID]:
    """Let the task of each name raise `error`; returns the subjects that they were given."""
    seen = []

    async def work(store: Any, app: Any, settings: Any, subject: UUID) -> None:
        seen.append(subject)
        if error is not None:
            raise error

    monkeypatch.setattr(tasks, "WORK", dict.fromkeys(tasks.WORK, work))
    return seen


@pytest.mark.parametrize("name", sorted(tasks.WORK))
def test_an_error_of_ours_is_logged_and_not_raised(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    seen = does(monkeypatch, NotFound("there is no iteration"))
    app = request.getfixturevalue("app")
    with caplog.at_level(logging.ERROR, "rewardloop.worker"):
        app.tasks[name](str(SUBJECT))
    assert seen == [SUBJECT]
    (record,) = caplog.records
    assert record.getMessage() == f"{name}: there is no iteration"
    assert record.__dict__["fields"]["status"] == 404


def test_any_other_error_is_left_to_celery_which_logs_its_traceback(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    does(monkeypatch, KeyError("weights"))
    app = request.getfixturevalue("app")
    with pytest.raises(KeyError):
        app.tasks[outbox.ADVANCE](str(SUBJECT))
