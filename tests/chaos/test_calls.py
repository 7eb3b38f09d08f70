"""How the suite counts calls, by hand."""

import json
from pathlib import Path

from tests.chaos.calls import read_calls, repeated_share, seconds_until_calls


def record(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "calls.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def begun(at: float, engine: int, call: int, work: str, fate: str = "answer") -> dict[str, object]:
    return {"at": at, "engine": engine, "call": call, "work": work, "fate": fate}


def ended(at: float, engine: int, call: int, *, answered: bool = True) -> dict[str, object]:
    return {"at": at, "engine": engine, "call": call, "answered": answered}


def test_only_calls_that_could_have_been_the_answer_count(tmp_path: Path) -> None:
    path = record(
        tmp_path,
        begun(1, 7, 1, "a", "error"),  # an injected fault: the next call for "a" is needed
        ended(2, 7, 1, answered=False),
        begun(3, 7, 2, "a"),
        ended(4, 7, 2),
        begun(5, 7, 3, "b"),  # its engine is killed
        begun(6, 8, 1, "b"),
        ended(7, 8, 1),
        begun(8, 8, 2, "a"),  # the only repetition, of four that count
        ended(9, 8, 2),
        begun(10, 8, 3, "c"),
        ended(11, 8, 3, answered=False),  # broken off by whoever asked
    )
    assert repeated_share(read_calls(path)) == 1 / 4
    assert repeated_share(read_calls(path, since=4.5)) == 0.0
    assert repeated_share([]) == 0.0


def test_calls_flow_again_with_the_first_that_begins(tmp_path: Path) -> None:
    calls = read_calls(record(tmp_path, begun(10, 1, 1, "a"), begun(14, 1, 2, "b")))
    assert seconds_until_calls(calls, 11) == 3
    assert seconds_until_calls(calls, 15) is None
