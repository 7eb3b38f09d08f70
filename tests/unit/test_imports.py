"""Importing a process's code must stay quick and small: no torch, vllm, trl or pyarrow."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, json, pkgutil, sys
def loaded(names):
    return sorted(names & {name.partition(".")[0] for name in sys.modules})
found = {}
import rewardloop
for module in pkgutil.walk_packages(rewardloop.__path__, "rewardloop."):
    if ".migrations" not in module.name:
        importlib.import_module(module.name)
heavy = {"torch", "vllm", "trl", "transformers", "pyarrow"}
found["rewardloop"] = loaded(heavy | {"fastapi", "starlette"})
for name in sys.argv[1:]:
    importlib.import_module(name)
    found[name] = loaded(heavy)
print(json.dumps(found))
"""

MODULES = [
    "services.api.app",
    "services.worker.tasks",
    "services.trainer.job",
    "services.judge.app",
    "services.generator.gate",
]


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """Heavy modules that are loaded after each import, in one fresh interpreter."""
    command = [sys.executable, "-c", PROGRAM, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    heavy: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return heavy


@pytest.mark.parametrize("module", ["rewardloop", *MODULES])
def test_nothing_heavy_is_imported(found: dict[str, list[str]], module: str) -> None:
    assert found[module] == []
