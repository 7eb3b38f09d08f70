"""Every run of the suite ends in one line of JSON that says how it went."""

import json
import time
from collections.abc import Iterator

import pytest

from rewardloop import redaction

pytest.register_assert_rewrite("tests.conformance")

_STARTED = pytest.StashKey[float]()
_SUMMARY = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = {
        outcome: len(terminalreporter.stats.get(outcome, []))
        for outcome in ("passed", "failed", "error", "skipped")
    }
    seconds = round(time.monotonic() - config.stash[_STARTED], 1)
    config.stash[_SUMMARY] = {**counts, "seconds": seconds}


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SUMMARY in config.stash:
        print(json.dumps(config.stash[_SUMMARY]))


@pytest.fixture(autouse=True)
def _no_secret_is_remembered() -> Iterator[None]:
    """A process keeps the secrets that it reads out of its messages; a test reads its own."""
    before = set(redaction._known)
    yield
    redaction._known.clear()
    redaction._known.update(before)
