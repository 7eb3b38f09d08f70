"""How many broken lines are spelled out, and what is said of the rest.

Tests `rewardloop.datasets.broken_lines`.
"""

from pathlib import Path

import pytest

from rewardloop.datasets.broken_lines import check_lines, counted
from rewardloop.datasets.files import BrokenLine
from rewardloop.errors import BrokenFile

PATH = Path("rows.jsonl")


def broken(num: int) -> list[BrokenLine]:
    return [BrokenLine(line, f"problem {line}") for line in range(1, num + 1)]


@pytest.mark.parametrize(
    ("num", "last"), [(1, None), (5, None), (6, "  and 1 more"), (9, "  and 4 more")]
)
def test_five_are_spelled_out(num: int, last: str | None) -> None:
    with pytest.raises(BrokenFile) as caught:
        check_lines(PATH, broken(num), num_good=3, skip_broken=False)
    told = caught.value.message.splitlines()[1:-1]
    spelled = [f"  line {line}: problem {line}" for line in range(1, min(num, 5) + 1)]
    assert told == spelled + ([last] if last else [])


@pytest.mark.parametrize(("num_good", "skip_broken"), [(1, True), (0, True), (1, False)])
def test_a_file_is_refused_without_a_good_line_or_where_none_may_be_skipped(
    num_good: int, skip_broken: bool
) -> None:
    if num_good and skip_broken:
        check_lines(PATH, broken(2), num_good=num_good, skip_broken=skip_broken)
    else:
        with pytest.raises(BrokenFile, match="2 broken lines"):
            check_lines(PATH, broken(2), num_good=num_good, skip_broken=skip_broken)
    check_lines(PATH, [], num_good=1, skip_broken=False)


def test_one_is_a_line_and_two_are_lines() -> None:
    assert counted(PATH, broken(1)) == "1 broken line"
    assert counted(PATH, broken(2)) == "2 broken lines"
    assert counted(Path("rows.parquet"), broken(2)) == "2 broken rows"
