"""Rows, files of them, and what is read of them, for the readers' tests."""

import json
from pathlib import Path
from typing import Any

from rewardloop.datasets import RankedResult, ReadResult, read_prompts, read_ranked

Told = list[tuple[list[tuple[str, str]], str | None]]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def jsonl(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    """Rows that are texts are written as they are."""
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def prompts(folder: Path, *rows: object, **options: Any) -> ReadResult:
    return read_prompts(jsonl(folder, *rows), **options)


def ranked(folder: Path, *rows: object, **options: Any) -> RankedResult:
    return read_ranked(jsonl(folder, *rows), **options)


def told(folder: Path, *rows: object, **options: Any) -> Told:
    """Each prompt's turns, and its reference."""
    found = prompts(folder, *rows, **options)
    return [
        ([(m["role"], m["content"]) for m in prompt.messages], prompt.reference)
        for prompt in found.prompts
    ]


def orders(folder: Path, *rows: object, **options: Any) -> list[list[tuple[str, int]]]:
    """Each ranked prompt's answers with their ranks."""
    found = ranked(folder, *rows, **options)
    return [[(answer.text, answer.rank) for answer in p.responses] for p in found.prompts]


def why_left_out(folder: Path, row: object, **options: Any) -> dict[str, int]:
    """The reasons for which a row is left out, beside a good one."""
    good = {"prompt": "a good row", "completion": "good"}
    found = prompts(folder, good, row, **options)
    assert len(found.prompts) == 1, found.prompts[1:]
    return {reason: left.count for reason, left in found.account.left_out.items()}


def told_why(folder: Path, row: object, **options: Any) -> str:
    """What is told of the one row that is left out, beside a good one."""
    found = prompts(folder, {"prompt": "a good row", "completion": "good"}, row, **options)
    (left,) = found.account.left_out.values()
    return left.detail
