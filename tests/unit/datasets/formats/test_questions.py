"""Benchmarks' questions and Self-Instruct's tasks.

Tests `rewardloop.datasets.formats.questions`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import prompts, told, why_left_out


def test_mt_bench_has_its_first_turn_read(tmp_path: Path) -> None:
    row = {"question_id": 81, "category": "writing", "turns": ["a", "b"]}
    found = prompts(tmp_path, row)
    assert found.prompts[0].source == "mt_bench:81"
    assert found.account.later_turns == 1
    assert told(tmp_path, row) == [([("user", "a")], None)]


def test_mt_bench_reference(tmp_path: Path) -> None:
    row = {"question_id": 101, "turns": ["a", "b"], "reference": ["r1", "r2"]}
    assert told(tmp_path, row) == [([("user", "a")], "r1")]


def test_vicuna(tmp_path: Path) -> None:
    row = {"question_id": 1, "text": "Q", "category": "generic"}
    assert told(tmp_path, row) == [([("user", "Q")], None)]


def test_each_instance_of_a_task_is_a_prompt(tmp_path: Path) -> None:
    instances = [{"input": "a", "output": "A"}, {"input": "b", "output": "B"}]
    row = {"id": "seed_task_0", "name": "n", "instruction": "Raise.", "instances": instances}
    assert told(tmp_path, row) == [
        ([("user", "Raise.\n\na")], "A"),
        ([("user", "Raise.\n\nb")], "B"),
    ]
    assert prompts(tmp_path, row).prompts[0].source == "self_instruct:seed_task_0"


@pytest.mark.parametrize("instances", ["x", [{}, 3], 4])
def test_malformed_tasks(tmp_path: Path, instances: Any) -> None:
    row = {"instruction": "Raise.", "instances": instances}
    assert why_left_out(tmp_path, row) == {"malformed": 1}


@pytest.mark.parametrize("turns", [[3], {"a": 1}, "words"])
def test_malformed_turns(tmp_path: Path, turns: Any) -> None:
    reason = why_left_out(tmp_path, {"question_id": 1, "turns": turns})
    assert set(reason) <= {"malformed", "unknown_shape"}


def test_a_question_without_anything_else(tmp_path: Path) -> None:
    assert told(tmp_path, {"question_id": 1, "text": "Q"}) == [([("user", "Q")], None)]
