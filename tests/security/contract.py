"""Does a service keep to its own OpenAPI document? Asked by schemathesis, with all its checks."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.security.services import Service

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Found:
    num_cases: int
    server_errors: list[str]
    violations: list[str]


def fuzz(service: Service, key: str, folder: Path, *, num_examples: int, phases: str) -> Found:
    """`num_examples` for each operation, from the same seed each time."""
    report = folder / f"{service.name}.json"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
        *("--checks", "all", "--max-examples", str(num_examples), "--phases", phases),
        *("--header", f"Authorization: Bearer {key}", "--seed", "1", "--continue-on-failure"),
        *("--report", "json", "--report-json-path", str(report), "--warnings", "off"),
        *("--suppress-health-check", "all", "--request-timeout", "120"),  # a machine may be slow
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return _read(json.loads(report.read_text()))


def _read(report: dict[str, Any]) -> Found:
    errors = [f"{error['title']} ({error['count']})" for error in report["errors"]]
    server_errors, violations = [], errors
    for failure in report["failures"]:
        told = json.dumps(failure)[:2000]
        (server_errors if "Server error" in told else violations).append(told)
    return Found(report["test_cases"]["generated"], server_errors, violations)
