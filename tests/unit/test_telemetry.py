"""The metrics' names, which dashboards are built on, and the form of the log."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from rewardloop import redaction, telemetry

GOLDEN = Path(__file__).parent / "golden" / "metric_names.json"
ROOT = Path(__file__).parents[2]


def test_metric_names_and_labels_are_frozen() -> None:
    """A changed name empties a panel: change the golden file and deploy/ on purpose."""
    metrics = [m for m in vars(telemetry).values() if isinstance(m, MetricWrapperBase)]
    found = {
        "process": {f"{m._type} {m._name}": list(m._labelnames) for m in metrics},
        "stored": telemetry.STORED_NAMES,
    }
    assert found == json.loads(GOLDEN.read_text())


def test_every_metric_name_is_written_here() -> None:
    """The module's promise: dashboards and code cannot drift apart."""
    elsewhere = [
        str(path.relative_to(ROOT))
        for folder in ("rewardloop", "services")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "telemetry.py"
        and "prometheus_client" in (code := path.read_text())
        and any(f"{kind}(" in code for kind in ("Counter", "Histogram", "Summary"))
    ]
    assert elsewhere == []


def observed(name: str, phase: str) -> float:
    return REGISTRY.get_sample_value(f"rewardloop_phase_seconds_{name}", {"phase": phase}) or 0.0


def test_a_phase_is_timed_even_if_it_fails() -> None:
    with telemetry.phase_timer("test"):
        pass
    assert observed("count", "test") == 1
    with pytest.raises(ZeroDivisionError), telemetry.phase_timer("test"):
        raise ZeroDivisionError
    assert observed("count", "test") == 2
    assert 0 <= observed("sum", "test") < 1


@pytest.fixture
def root_log() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root, http = logging.getLogger(), logging.getLogger("httpx")
    before = root.handlers[:], root.level, http.level
    root.handlers = []
    hook, work = sys.excepthook, telemetry.current_work()
    yield root
    telemetry.name_work(work)
    sys.excepthook = hook
    logging.captureWarnings(False)
    root.handlers = before[0]
    root.setLevel(before[1])
    http.setLevel(before[2])


def test_the_log_is_one_json_object_a_line(
    root_log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.log_json()
    logger = logging.getLogger("rewardloop.test")
    logger.info("two\nlines and %d", 7, extra={"fields": {"iteration": 3, "path": Path("/x")}})
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("failed")
    logging.getLogger("httpx").info("too much")
    lines = capsys.readouterr().err.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["message"] == "two\nlines and 7"
    assert (first["level"], first["logger"]) == ("info", "rewardloop.test")
    assert (first["iteration"], first["path"]) == (3, "/x")
    assert first["time"][10] == "T"
    assert "KeyError: 'gone'" in second["exception"]


@pytest.fixture
def lines(root_log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> Any:
    """Returns what was logged since."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_lines_inside_work_carry_its_ids(lines: Any) -> None:
    telemetry.log_json()
    logger = logging.getLogger("somebody.elses")
    with telemetry.work_fields(iteration="i", run=None):
        with telemetry.work_fields(run="r", version=1):
            logger.info("inner")
        logger.info("outer")
    logger.info("outside")
    inner, outer, outside = lines()
    assert (inner["iteration"], inner["run"], inner["version"]) == ("i", "r", "1")
    assert outer["iteration"] == "i"
    assert "run" not in outer
    assert "iteration" not in outside


async def test_tasks_keep_their_own_work(lines: Any) -> None:
    async def work(name: str) -> None:
        with telemetry.work_fields(iteration=name):
            await asyncio.sleep(0)
            logging.getLogger("x").info(name)

    telemetry.log_json()
    await asyncio.gather(work("a"), work("b"))
    assert [line["iteration"] == line["message"] for line in lines()] == [True, True]


def test_work_goes_along_in_a_header() -> None:
    with telemetry.work_fields(iteration="0-1", version="m1,run=forged"):
        header = telemetry.work_header()
    assert header == "iteration=0-1,version=m1%2Crun%3Dforged"
    assert telemetry.work_of(header) == {"iteration": "0-1"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        ("iteration=a;ttl=1 , run = b,version=", {"iteration": "a", "run": "b"}),
        ("user=me,trace=1", {}),
        (f"iteration={'a' * 201},run={'b' * 200}", {"run": "b" * 200}),
        ("iteration=%1b[2J,run=%0a,version=%C3%A9", {}),
        (",".join(["x=1"] * 70 + ["run=late"]), {}),
        ("=,==,;;,run", {}),
    ],
)
def test_of_a_foreign_header_only_ids_are_taken(header: str, found: dict[str, str]) -> None:
    assert telemetry.work_of(header) == found


def test_a_child_learns_its_parents_work(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(telemetry.WORK_VARIABLE, "iteration=of-the-parent")
    telemetry.log_json()
    logging.getLogger("child").info("x")
    (line,) = lines()
    assert line["iteration"] == "of-the-parent"


def test_no_line_holds_a_secret(lines: Any) -> None:
    telemetry.log_json()
    redaction.keep_out("known-to-this-process")
    try:
        raise OSError("redis://:hidden-pass@h and known-to-this-process")
    except OSError:
        logging.getLogger("x").exception(
            "%s", "Bearer hidden-token", extra={"fields": {"a": [{"known-to-this-process": 1}]}}
        )
    (line,) = lines()
    assert not {"hidden", "known-to"} & set(re.findall(r"hidden|known-to", json.dumps(line)))
    assert "redis://***@h and ***" in line["exception"]
    assert line["a"] == [{"***": 1}]


def test_the_last_traceback_is_a_line_too(lines: Any) -> None:
    telemetry.log_json()
    try:
        raise ValueError("http://me:hidden@h")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    (line,) = lines()
    assert line["message"] == "the process ends: http://***@h"
    assert "ValueError" in line["exception"]
