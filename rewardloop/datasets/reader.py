"""Reads a prompt file into `PromptRecord`s.

Either every line is good, or nothing is handed over and the error tells every
broken line; `skip_broken` is the caller's word to leave those out. Knows no
format from inside: each has a file with a pure `record`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from rewardloop.datasets import (
    alpaca,
    fields,
    oasst,
    ranked_seed,
    seed,
    self_instruct,
    sharegpt,
    trl,
)
from rewardloop.datasets.broken_lines import check_lines
from rewardloop.datasets.conversation import numbered
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.files import BrokenLine, Item, read_items, unit_of
from rewardloop.errors import InvalidInput
from rewardloop.records import PromptRecord


class Format(StrEnum):
    AUTO = "auto"
    """Recognised by the keys of the first record."""
    SEED = "seed"
    """{"id", "category", "prompt", "response"}: Rewardloop's own."""
    OASST = "oasst"
    """{"message_tree_id", "prompt": {"text", "replies"}}: Open Assistant's tree export."""
    ALPACA = "alpaca"
    """{"instruction", "input", "output"}."""
    SHAREGPT = "sharegpt"
    """{"conversations": [{"from", "value"}]}."""
    TRL = "trl"
    """{"prompt", "completion" or "chosen"} or {"messages"}: texts or messages."""
    SELF_INSTRUCT = "self_instruct"
    """{"id", "instruction", "instances": [{"input", "output"}]}."""
    RANKED = "ranked"
    """{"id", "category", "prompt", "responses": [{"rank", "text"}]}: Rewardloop's own."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a file held."""

    format: Format
    """Never AUTO: the one that was recognised."""
    prompts: tuple[PromptRecord, ...]
    skipped: tuple[BrokenLine, ...]
    """Broken lines that were left out; empty unless `skip_broken`."""
    num_filtered: int
    """Good lines without a wanted prompt: deleted, empty, too long or in another language."""


_SIGNATURES: tuple[tuple[Format, frozenset[str]], ...] = (
    (Format.SEED, frozenset({"prompt", "response"})),
    (Format.SEED, frozenset({"prompt", "category"})),
    (Format.OASST, frozenset({"prompt", "message_tree_id"})),
    (Format.ALPACA, frozenset({"instruction", "output"})),
    (Format.SHAREGPT, frozenset({"conversations"})),
    (Format.TRL, frozenset({"messages"})),
    (Format.TRL, frozenset({"prompt", "completion"})),
    (Format.TRL, frozenset({"prompt", "chosen"})),
    (Format.TRL, frozenset({"chosen", "rejected"})),
    (Format.SELF_INSTRUCT, frozenset({"instruction", "instances"})),
    (Format.RANKED, frozenset({"prompt", "responses"})),
)
"""A record may be of a format if it has all keys of one of its signatures."""

_PROMPT_ONLY = frozenset({"prompt", "prompt_id", "id"})
"""TRL's prompt-only type has no other keys, lest an answer under a foreign key get lost."""


def read_prompts(
    path: Path,
    format: Format = Format.AUTO,
    *,
    skip_broken: bool = False,
    language: str | None = "en",
) -> ReadResult:
    """All prompts of a `.jsonl`, `.jsonl.gz` or `.json` file, in the file's order.

    `language` is looked at where the format tells one (Open Assistant); None takes all.

    Raises:
        BrokenFile: lines are broken and `skip_broken` is false, or no line is good.
        InvalidInput: the file cannot be read, is empty, or its format is not recognised.
    """
    reading = _Reading(path, format, language)
    for item in read_items(path):
        reading.add(item)
    return reading.result(skip_broken)


class _Reading:
    """What is known of a file so far; the format is recognised at its first object."""

    def __init__(self, path: Path, format: Format, language: str | None) -> None:
        self._path = path
        self._format = format
        self._language = language
        self._prompts: list[PromptRecord] = []
        self._broken: list[BrokenLine] = []
        self._num_filtered = 0

    def add(self, item: Item | BrokenLine) -> None:
        if isinstance(item, BrokenLine):
            self._broken.append(item)
            return
        if self._format is Format.AUTO:
            self._format = _recognised(self._path, item)
        try:
            found = _parser(self._format, self._language)(item.raw)
        except ValueError as error:
            self._broken.append(BrokenLine(item.line, str(error)))
            return
        self._num_filtered += not found
        self._prompts += [numbered(prompt, item.line) for prompt in found]

    def result(self, skip_broken: bool) -> ReadResult:
        auto = self._format is Format.AUTO
        check_lines(
            self._path,
            self._broken,
            num_good=len(self._prompts) + self._num_filtered,
            skip_broken=skip_broken,
            tried="" if auto else f", read as {self._format}",
            otherwise=", or name another format with --format",
        )
        return ReadResult(
            format=self._format,
            prompts=tuple(self._prompts),
            skipped=tuple(self._broken),
            num_filtered=self._num_filtered,
        )


def _parser(format: Format, language: str | None) -> Callable[[Raw], list[PromptRecord]]:
    parsers: dict[Format, Callable[[Raw], list[PromptRecord]]] = {
        Format.SEED: seed.record,
        Format.OASST: partial(oasst.record, language=language),
        Format.ALPACA: alpaca.record,
        Format.SHAREGPT: sharegpt.record,
        Format.TRL: trl.record,
        Format.SELF_INSTRUCT: self_instruct.record,
        Format.RANKED: ranked_seed.record,
    }
    return parsers[format]


def _recognised(path: Path, item: Item) -> Format:
    keys = frozenset(item.raw)
    found = {format for format, signature in _SIGNATURES if signature <= keys}
    if Format.RANKED in found and "response" not in keys:
        found.discard(Format.SEED)  # Both may have a category.
    if not found and "prompt" in keys <= _PROMPT_ONLY:
        found = {Format.TRL}
    if len(found) == 1:
        return found.pop()
    known = ", ".join(format for format in Format if format is not Format.AUTO)
    which = f"may be any of {', '.join(sorted(found))}" if found else "is of no known format"
    raise InvalidInput(
        f"{path}: {unit_of(path)} {item.line} {which}, by its keys ({fields.keys_of(item.raw)}). "
        f"Name the format with --format, or convert the file; the formats are {known}."
    )
