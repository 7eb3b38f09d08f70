"""The metrics' names, which dashboards are built on, and the form of the log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from rewardloop import telemetry

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
    yield root
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
