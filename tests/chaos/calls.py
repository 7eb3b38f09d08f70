"""Reads the stub engine's record: how many calls were made twice, and when calls flowed."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Call:
    at: float
    engine: int
    number: int
    work: str
    fate: str
    ended: bool
    answered: bool


def read_calls(path: Path, since: float = 0.0) -> list[Call]:
    """The calls that began after `since`, in their order."""
    begun: dict[tuple[int, int], dict[str, object]] = {}
    ended: dict[tuple[int, int], bool] = {}
    for line in path.read_text().splitlines():
        found = json.loads(line)
        key = (found["engine"], found["call"])
        if "work" in found:
            begun[key] = found
        else:
            ended[key] = found["answered"]
    return [
        Call(
            at=found["at"],  # type: ignore[arg-type]
            engine=key[0],
            number=key[1],
            work=str(found["work"]),
            fate=str(found["fate"]),
            ended=key in ended,
            answered=ended.get(key, False),
        )
        for key, found in begun.items()
        if found["at"] >= since  # type: ignore[operator]
    ]


def repeated_share(calls: list[Call]) -> float:
    """Of the calls that nothing befell, the part whose work another such call had begun before.

    A call that met an injected fault, or whose engine was killed under it, gave no answer: the
    next one for its work is no repetition.
    """
    counted = [call for call in calls if call.fate == "answer" and call.ended]
    if not counted:
        return 0.0
    per_work = Counter(call.work for call in counted)
    return sum(times - 1 for times in per_work.values()) / len(counted)


def seconds_until_calls(calls: list[Call], moment: float) -> float | None:
    """Seconds from `moment` until the next call began; None if none did."""
    later = [call.at for call in calls if call.at >= moment]
    return min(later) - moment if later else None
