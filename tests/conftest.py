"""What every test shares: the order, the two processes of a parallel run, the last line.

- Tests of real engines (tests/e2e) come last. Asked to run in several processes
  (`-n 2`, as `make test` does), one process runs all of them, one after another,
  when nothing else is left: an engine binds its threads to every core.
- Unit tests are dealt out a file at a time, all others one by one.
- Every run ends in one line of JSON that says how it went.
"""

import json
import time
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest

from rewardloop import redaction

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

pytest.register_assert_rewrite("tests.conformance")

_STARTED = pytest.StashKey[float]()
_SUMMARY = pytest.StashKey[dict[str, float]]()

# The long ones first: what is short fills both processes to the end.
_ORDER = ("integration", "chaos", "security", "unit", "e2e")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(_folder(item.nodeid)))


def _folder(nodeid: str) -> str:
    """The folder of tests/ that a test lives in."""
    parts = PurePath(nodeid.partition("::")[0]).parts
    return parts[1] if parts[0] == "tests" and len(parts) > 2 else ""


def _place(folder: str) -> int:
    return _ORDER.index(folder) if folder in _ORDER else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    from xdist.scheduler import LoadScopeScheduling

    class EnginesAlone(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _dealt_with(nodeid)

    config.option.loadscopereorder = False  # else the largest group, not the first, is dealt first
    return EnginesAlone(config, log)


def _dealt_with(nodeid: str) -> str:
    """The name of the group of tests that one process runs without a break."""
    folder = _folder(nodeid)
    if folder == "e2e":
        return folder
    return nodeid.partition("::")[0] if folder == "unit" else nodeid


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
