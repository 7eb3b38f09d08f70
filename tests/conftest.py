"""What every test shares: the order, the two processes of a parallel run, the last line.

- Tests that start real engines come last. Asked to run in several processes (`-n 2`, as
  `make test` does), one process runs all of them, one after another, when nothing else
  is left: an engine binds its threads to every core.
- Unit tests and trainings are dealt out a file at a time, all others one by one.
- Every run ends in one line of JSON that says how it went.
"""

import gc
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
_ORDER = ("training", "integration", "chaos", "security", "unit", "engines")
# Those of tests/e2e that only train. What is not named here may start an engine.
_TRAINING = (
    *("test_adapter_damage", "test_adapters", "test_answers_forward", "test_base_model"),
    *("test_dpo", "test_dpo_reference"),
    *("test_dpo_rows", "test_early_stopping", "test_gpu_check_counts", "test_optimisation"),
    *("test_parts", "test_resume", "test_sft", "test_stopped_training"),
)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _ORDER.index(_kind(item.nodeid)))


def pytest_collection_finish() -> None:
    """What was imported lives as long as the run; the collector need not walk it each time."""
    gc.collect()
    gc.freeze()


def _kind(nodeid: str) -> str:
    path = PurePath(nodeid.partition("::")[0])
    if path.parts[:2] == ("tests", "e2e"):
        return "training" if path.stem in _TRAINING else "engines"
    return next((part for part in path.parts if part in _ORDER), "unit")


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
    kind = _kind(nodeid)
    if kind == "engines":
        return kind
    return nodeid.partition("::")[0] if kind in ("unit", "training") else nodeid


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
