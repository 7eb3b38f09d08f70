"""What a format is: a name, the rows that are of it, and how they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewardloop.datasets import fields
from rewardloop.datasets.form import Candidate, Conversation, Grade
from rewardloop.datasets.row import Row
from rewardloop.records import Message

_IDS = (
    "id",
    "prompt_id",
    "conversation_id",
    "question_id",
    "message_tree_id",
    "qid",
    "post_id",
    "uid",
    "uuid",
    "idx",
)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One format, or one shape of it."""

    name: str
    fits: Callable[[frozenset[str], Row], bool]
    """Told the columns that count; the row is for a look at their values."""
    read: Callable[[Row], list[Conversation]]
    passes_over: tuple[str, ...] = ()
    """Columns that add nothing here, though elsewhere they may mean something."""


def has(*keys: str) -> Callable[[frozenset[str], Row], bool]:
    """Fits rows with all of these columns."""
    wanted = frozenset(keys)
    return lambda filled, _: wanted <= filled


def source(row: Row, name: str, *keys: str) -> str:
    """`format:id`, or the line's number as in `alpaca:#3`."""
    found = fields.source(name, row, *(keys or _IDS))
    return found if ":" in found else f"{name}:#{row.line}"


def conversation(
    row: Row,
    name: str,
    messages: Sequence[Message],
    candidates: Sequence[Candidate] = (),
    *,
    num_later_turns: int = 0,
) -> list[Conversation]:
    """The row's one conversation."""
    return [Conversation(tuple(messages), tuple(candidates), source(row, name), num_later_turns)]


def candidate(row: Row, column: str, grade: Grade) -> list[Candidate]:
    """The answer in a column; none where it is missing, null or blank.

    Raises:
        ValueError: the column holds no text.
    """
    if row.value(column) is None:
        return []
    return [Candidate(fields.text(row, column), grade)]
