"""Questions that a child asks its parent; what goes one way is in the integration tests."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardloop.errors import TrainingFailed
from services.trainer.child import Answer, run_child

Write = Callable[[str], str]
HEADER = """
import os, sys
from services.trainer.child import ask, open_channel, report
task, channel = open_channel()
"""
ASKS_TWICE = """
print("noise from a library")
report(channel, num_steps=2)
first = ask(channel, validation={"step": 0, "answers": ["é" * 100_000]})
report(channel, step=1, metrics={"loss": 0.5}, first=first)
second = ask(channel, validation={"step": 1, "answers": ["b"]})
report(channel, second=second)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module for a child to run; returns its name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(code: str) -> str:
        (tmp_path / "asking_child.py").write_text(HEADER + code)
        return "asking_child"

    return write


async def reports(
    name: str, task: dict[str, Any], answer: Answer | None = None
) -> list[dict[str, Any]]:
    return [report async for report in run_child(name, task, answer)]


async def test_questions_are_answered_in_turn_and_not_yielded(module: Write) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        asked.append(question)
        return {"go_on": question["step"] == 0, "note": "ü\n" * 100_000}

    seen = await reports(module(ASKS_TWICE), {"pairs": ["ä" * 200_000]}, answer)
    assert asked == [
        {"step": 0, "answers": ["é" * 100_000]},
        {"step": 1, "answers": ["b"]},
    ]
    assert seen == [
        {"num_steps": 2},
        {
            "step": 1,
            "metrics": {"loss": 0.5},
            "first": {"go_on": True, "note": "ü\n" * 100_000},
        },
        {"second": {"go_on": False, "note": "ü\n" * 100_000}},
    ]


async def test_a_child_that_asks_nothing_ends_though_it_could_be_answered(module: Write) -> None:
    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError(question)

    assert await reports(module("report(channel, got=task)"), {"seed": 3}, answer) == [
        {"got": {"seed": 3}}
    ]


async def test_a_question_that_nobody_answers_ends_the_child(module: Write) -> None:
    code = """
from services.trainer.child import reported_errors
with reported_errors(channel):
    ask(channel, validation={"step": 0, "answers": []})
"""
    with pytest.raises(TrainingFailed, match="ended before it answered"):
        await reports(module(code), {})


async def test_an_error_of_the_one_who_answers_ends_the_child_too(module: Write) -> None:
    pids: list[int] = []

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        pids.append(question["pid"])
        raise LookupError("no judge")

    code = 'ask(channel, validation={"pid": os.getpid()})'
    with pytest.raises(LookupError, match="no judge"):
        await reports(module(code), {}, answer)
    assert not psutil.pid_exists(pids[0])


async def test_a_child_that_dies_while_it_is_answered_is_an_error(module: Write) -> None:
    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        return {"go_on": True, "padding": "x" * 1_000_000}

    code = 'report(channel, validation={"step": 0})\nos.kill(os.getpid(), 9)'
    with pytest.raises(TrainingFailed, match="status -9"):
        await reports(module(code), {}, answer)
