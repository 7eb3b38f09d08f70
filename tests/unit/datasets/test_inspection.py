"""What is told of a file beside its account."""

from pathlib import Path

import pytest

from rewardloop.datasets import inspection
from rewardloop.datasets.inspection import Measured, percentiles


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([7], {"num": 1, "p50": 7, "p90": 7, "p99": 7, "max": 7}),
        ([2, 1], {"num": 2, "p50": 1, "p90": 2, "p99": 2, "max": 2}),
        (list(range(1, 101)), {"num": 100, "p50": 50, "p90": 90, "p99": 99, "max": 100}),
        (list(range(1, 1001)), {"num": 1000, "p50": 500, "p90": 900, "p99": 990, "max": 1000}),
    ],
)
def test_percentiles_are_lengths_that_occur(lengths: list[int], expected: dict[str, int]) -> None:
    assert percentiles(lengths) == expected


def test_of_nothing_there_are_no_percentiles() -> None:
    assert percentiles([]) is None


def test_a_prompt_is_measured_once_with_all_of_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"prompt": "q", "chosen": "good", "rejected": "bad"}\n{"prompt": "r", "completion": "c"}\n'
    )
    found = inspection.inspect(path)
    assert [(i.messages[-1]["content"], i.answers) for i in found.items] == [
        ("q", ["good", "bad"]),
        ("r", ["c"]),
    ]


def test_what_is_too_long_is_counted_in_tokens_only(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "q", "completion": "c"}\n')
    found = inspection.inspect(path)
    lengths = [(88, [936, 937]), (89, []), (1000, [24, 25])]
    measured = Measured("tokens", "m1", 600, lengths, 0, {}, 0)
    limits = inspection.report(found, "seed", measured)["limits"]
    # 600 - 512 leave room for 88 tokens; the two sums over 1,024 are 1,025 each.
    assert (limits["prompts_over_context"], limits["answers_over_max_length"]) == (2, 2)
    unknown = Measured("tokens", "m1", None, lengths, 0, {}, 0)
    assert inspection.report(found, "seed", unknown)["limits"]["prompts_over_context"] is None
    assert inspection.report(found, "x", inspection.in_characters(found.items))["limits"] is None
