"""The reconciler's clock ticks whatever happens, and ends with its block."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rewardloop.config import Settings
from rewardloop.errors import UpstreamUnavailable
from services.worker import clock


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=SecretStr("postgresql+psycopg://me:secret@127.0.0.1:1/none"),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        api_key=SecretStr("api-key-of-the-tests"),
        admin_key=SecretStr("admin-key-of-the-tests"),
        checkpoint_root=tmp_path,
    )


def counting(wanted: int, error: Exception) -> tuple[Callable[..., Any], threading.Event]:
    """A reconciler that always fails, and what is set once it was run so often."""
    enough, runs = threading.Event(), [0]

    async def run(*_: Any) -> None:
        runs[0] += 1
        if runs[0] == wanted:
            enough.set()
        raise error

    return run, enough


@pytest.mark.parametrize("error", [UpstreamUnavailable("away"), KeyError("unforeseen")])
def test_the_clock_outlives_errors(
    settings: Settings, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, enough = counting(3, error)
    monkeypatch.setattr(clock.reconcile, "run", run)
    monkeypatch.setattr(clock, "RECONCILE_SECONDS", 0.01)
    before = threading.active_count()
    with clock.ticking(settings):
        assert enough.wait(60)
    deadline = time.monotonic() + 30  # it is joined for two ticks, which are short here
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
