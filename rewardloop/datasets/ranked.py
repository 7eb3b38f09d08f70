"""Reads a file of graded answers into `RankedPrompt`s.

Any shape with two or more graded answers to a prompt: ranks, ratings of one scale,
thumbs up and down, preferences. A prompt is handed over with two responses or more,
not all of one rank; whatever else a row holds is counted under why it was left out.
"""

from dataclasses import dataclass
from pathlib import Path

from rewardloop.datasets import reading
from rewardloop.datasets.account import Account
from rewardloop.datasets.files import BrokenLine
from rewardloop.datasets.formats.table import Format
from rewardloop.datasets.grouping import judged
from rewardloop.datasets.reader import check
from rewardloop.errors import InvalidInput
from rewardloop.records import PromptRecord, RankedPrompt


@dataclass(frozen=True, slots=True)
class RankedResult:
    """What a file held."""

    prompts: tuple[RankedPrompt, ...]
    """Each conversation once, in the file's order."""
    skipped: tuple[BrokenLine, ...]
    """Lines and rows that could not be understood; empty under `strict`."""
    left_out: dict[str, int]
    """How many rows, prompts or answers were left out, by `Reason`; what did not occur is not
    named."""
    account: Account


def read_ranked(
    path: Path,
    format: Format | str = Format.AUTO,
    *,
    strict: bool = False,
    skip_broken: bool = True,
    language: str | None = "en",
) -> RankedResult:
    """All prompts of a file with answers in order.

    A row that names another language than `language` is left out; None takes all languages.
    `skip_broken=False` means the same as `strict=True` and is kept for older callers.

    Raises:
        BrokenFile: no row is good; or, with `strict`, one is not.
        InvalidInput: the file cannot be read, is empty, or nothing of it is left.
    """
    found = reading.read(path, Format(format), language)
    check(path, found, strict or not skip_broken, format)
    prompts = []
    num_references = num_bad = 0
    for group in found.groups.values():
        result = judged(group)
        found.note(result.not_ranked, group.line)
        num_references += result.reference is not None
        if result.ranking:
            record = PromptRecord(group.messages, result.reference, group.source)
            prompts.append(RankedPrompt(record, result.ranking))
            num_bad += not result.ranking[0].imitate
    found.notes += _note_on_bad(num_bad)
    account = found.account(num_references, len(prompts))
    left_out = {reason: told.count for reason, told in account.left_out.items()}
    if not prompts:
        raise _nothing_left(path, left_out)
    return RankedResult(tuple(prompts), tuple(found.broken), left_out, account)


def _note_on_bad(num: int) -> tuple[str, ...]:
    if not num:
        return ()
    return (
        f"{num} of the rankings give no example to imitate (IFT): their best answer is called bad, "
        "or rated zero or not above the middle of its scale.",
    )


def _nothing_left(path: Path, left_out: dict[str, int]) -> InvalidInput:
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return InvalidInput(
        f"{path}: no prompt with ranked responses is left. Left out were: {told or 'nothing'}. "
        "A prompt needs two responses of different ranks, ratings or labels, in the wanted "
        "language where the file tells one."
    )
