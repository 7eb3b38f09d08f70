"""What docs/explanation/guarantees.md and SECURITY.md promise: times and tests are there."""

import re
from datetime import timedelta
from pathlib import Path

from rewardloop.queue import HINT_SECONDS
from rewardloop.store.failures import MAX_FAILING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"


def test_a_message_that_waited_for_a_minute_is_dropped() -> None:
    assert HINT_SECONDS == 60
    assert "Workers drop messages older than a minute" in PAGE.read_text()


def test_what_fails_for_an_hour_without_progress_has_failed() -> None:
    assert timedelta(hours=1) == MAX_FAILING
    assert "failed for an hour without any progress" in PAGE.read_text()


def test_each_security_promise_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 12
    assert [path for path in named if not (ROOT / path).exists()] == []
