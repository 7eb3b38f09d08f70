"""The times that docs/explanation/guarantees.md promises are those of the code."""

from datetime import timedelta
from pathlib import Path

from rewardloop.queue import HINT_SECONDS
from rewardloop.store.failures import MAX_FAILING

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "guarantees.md"


def test_a_message_that_waited_for_a_minute_is_dropped() -> None:
    assert HINT_SECONDS == 60
    assert "Workers drop messages older than a minute" in PAGE.read_text()


def test_what_fails_for_an_hour_without_progress_has_failed() -> None:
    assert timedelta(hours=1) == MAX_FAILING
    assert "failed for an hour without any progress" in PAGE.read_text()
