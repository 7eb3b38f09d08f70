"""Reads a file into prompts, each with the answer to learn where the file has one.

An odd row is left out by name and counted; `strict` refuses the file instead.
Rows with one prompt are candidates of that prompt. Knows no format from inside.
"""

from dataclasses import dataclass
from pathlib import Path

from rewardloop.datasets import reading
from rewardloop.datasets.account import Account
from rewardloop.datasets.broken_lines import check_lines
from rewardloop.datasets.files import BrokenLine
from rewardloop.datasets.formats.table import Format
from rewardloop.datasets.grouping import judged
from rewardloop.datasets.reading import Reading
from rewardloop.records import PromptRecord


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a file held."""

    format: Format
    """That of most rows; the account has them all."""
    prompts: tuple[PromptRecord, ...]
    """Each conversation once, in the file's order."""
    skipped: tuple[BrokenLine, ...]
    """Lines and rows that could not be understood; empty under `strict`."""
    num_filtered: int
    """Rows that are understood and not wanted: deleted, empty, too long, in another language."""
    account: Account


def read_prompts(
    path: Path,
    format: Format | str = Format.AUTO,
    *,
    strict: bool = False,
    skip_broken: bool = True,
    language: str | None = "en",
) -> ReadResult:
    """All prompts of a file, in the file's order.

    A named format only restricts: a row that is not of it is left out. A row that names another
    language than `language` is left out too; None takes all languages. `skip_broken=False` means
    the same as `strict=True` and is kept for older callers.

    Raises:
        BrokenFile: no row is good; or, with `strict`, one is not.
        InvalidInput: the file cannot be read, or is empty.
    """
    found = reading.read(path, Format(format), language)
    check(path, found, strict or not skip_broken, format)
    prompts = []
    num_ranked = 0
    for group in found.groups.values():
        result = judged(group)
        found.note(result.not_references, group.line)
        num_ranked += bool(result.ranking)
        prompts.append(PromptRecord(group.messages, result.reference, group.source))
    return ReadResult(
        format=found.main_format(),
        prompts=tuple(prompts),
        skipped=tuple(found.broken),
        num_filtered=found.num_filtered,
        account=found.account(sum(p.reference is not None for p in prompts), num_ranked),
    )


def check(path: Path, found: Reading, strict: bool, format: Format | str) -> None:
    """Refuses a file without a good row, and a `strict` one with a bad row.

    Raises:
        BrokenFile: no row is good, or one is not and `strict` is true.
        InvalidInput: the file is empty.
    """
    is_open = Format(format) is Format.AUTO
    check_lines(
        path,
        found.broken,
        num_good=sum(found.formats.values()) + found.num_filtered,
        skip_broken=not strict,
        tried="" if is_open else f", read as {Format(format)}",
        otherwise="" if is_open else ", or leave --format out",
    )
