"""The account of a reading: what a file held, what was read of it, and what was not.

Owns the figures that `inspect` shows and that an import ends with. They are
plain numbers and texts, so that they can be sent as JSON. Knows no format.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rewardloop.datasets.form import Conversation


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How often one reason left something out."""

    count: int
    first_line: int
    """Counted from 1; of a `.json` file the element's number."""
    detail: str = ""
    """What the first one was, in words; empty where the reason says it all."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a file held, and what became of it."""

    formats: Mapping[str, int]
    """Rows by the format that they were read as."""
    num_rows: int
    """All rows of the file, those that were left out among them."""
    num_prompts: int
    """Distinct prompts that were read."""
    num_references: int
    """Of these prompts, those with an answer to learn."""
    num_ranked: int
    """Of these prompts, those with two or more answers in a known order."""
    columns_used: Mapping[str, int]
    """Columns that were read as meaning, with the number of rows."""
    columns_passed_over: Mapping[str, int]
    """Columns known to carry nothing that is trained on: ids, categories, timestamps."""
    columns_unknown: Mapping[str, int]
    """Columns that hold something and that no reader knows."""
    left_out: Mapping[str, LeftOut]
    """What was left out, by reason."""
    duplicates: int = 0
    """Rows that repeat a prompt of an earlier row and add no answer to it."""
    later_turns: int = 0
    """Turns after an answer that was read; they are not trained on."""
    cut_sources: int = 0
    """Sources (ids) that were longer than can be stored, and were cut."""
    notes: tuple[str, ...] = ()
    """What was read otherwise than the file's name or form promised, in words."""
    examples: tuple[Conversation, ...] = field(default=())
    """Up to three conversations with their candidates."""

    def as_json(self) -> dict[str, Any]:
        """Plain objects; a candidate's grade is told by its kind."""
        plain = asdict(self)
        plain["examples"] = [_example(example) for example in self.examples]
        return plain


def _example(conversation: Conversation) -> dict[str, Any]:
    return {
        "messages": [dict(message) for message in conversation.messages],
        "candidates": [
            {"text": c.text, "grade": {"kind": type(c.grade).__name__.lower(), **asdict(c.grade)}}
            for c in conversation.candidates
        ],
        "source": conversation.source,
    }
