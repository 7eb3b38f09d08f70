"""Every run of the suite ends in one line of JSON that says how it went."""

import json
import time

import pytest

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
