"""What is asked: the prompt of a row, with its system turn, history and input.

Owns the columns that change what a prompt is. A prompt's text that holds a
rendered conversation is split into turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from rewardloop.datasets import fields, marks, turns
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, parsed, says_something
from rewardloop.records import Message

SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")
HISTORY = (
    "history", "chat_history", "conversation_history", "dialog_history", "dialogue_history",
    "previous_turns",
)  # fmt: skip
INPUT = ("input", "context", "passage", "document")
_NO_INPUT = frozenset({"<noinput>", "noinput", "no input", "<no input>", "n/a"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and whether its text held turn marks."""

    messages: list[Message]
    was_rendered: bool = False


def user(content: str) -> list[Message]:
    """A conversation of one turn."""
    return [{"role": "user", "content": content}]


def prompt(row: Row, column: str) -> Asked:
    """The prompt in a column, a text or turns, with the row's system turn and history."""
    value = parsed(row[column])
    if isinstance(value, list | dict):
        said = [turn.message for turn in turns.read(value, column)]
        found = Asked(marks.unrendered(said))
        found = Asked(found.messages, was_rendered=found.messages != said)
    else:
        found = _of_text(fields.text(row, column))
    return Asked(in_context(row, found.messages), found.was_rendered)


def instruction(row: Row, column: str) -> Asked:
    """A prompt and, after a blank line, what it is about."""
    said = fields.text(row, column)
    about = row.first(*INPUT)
    if about is None or _is_placeholder(about):
        return prompt(row, column)
    if not said.strip():
        raise RowLeftOut(Reason.PROMPT_EMPTY, "the prompt has no text beside its input")
    if not isinstance(about, str):
        raise ValueError(f"what the prompt is about is {fields.kind_of(about)}, not a text")
    if marks.split(said) is not None:
        raise RowLeftOut(Reason.TURN_MARKS, "a rendered conversation has an input beside it")
    return Asked(in_context(row, user(f"{said}\n\n{about}")))


def _is_placeholder(about: object) -> bool:
    """What Alpaca's descendants and pandas write where there is no input."""
    return isinstance(about, str) and (
        not says_something(about) or about.strip().lower() in _NO_INPUT
    )


def _of_text(text: str) -> Asked:
    split = marks.split(text)
    return Asked(user(text)) if split is None else Asked(split, was_rendered=True)


def in_context(row: Row, messages: Sequence[Message]) -> list[Message]:
    """The messages behind the row's own system turn and history, where it has them."""
    return [*_system(row, messages), *_history(row), *messages]


def _system(row: Row, messages: Sequence[Message]) -> list[Message]:
    named = [k for k in SYSTEM if k in row.filled and says_something(row.peek(k))]
    if not named:
        return []
    text = turns.content(row[named[0]], named[0])
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() == text.strip():
            return []
        raise RowLeftOut(
            Reason.COLUMNS_DISAGREE, f'"{named[0]}" is not the conversation\'s own system turn'
        )
    return [{"role": "system", "content": text}]


def _history(row: Row) -> list[Message]:
    column = next((key for key in HISTORY if key in row.filled), None)
    value = None if column is None else row.listed(column)
    if value in (None, "[]"):
        return []
    if not isinstance(value, list):
        raise RowLeftOut(Reason.COLUMN_NOT_READ, f'"{column}" is no list of turns')
    messages: list[Message] = []
    for element in cast(list[object], value):
        messages += _exchange(parsed(element))
    return messages


def _exchange(element: object) -> list[Message]:
    """LLaMA-Factory has [question, answer] pairs, others have turns."""
    if isinstance(element, dict):
        return [turn.message for turn in turns.read([element], "history")]
    if not isinstance(element, list) or len(element) != 2:
        raise RowLeftOut(Reason.COLUMN_NOT_READ, '"history" holds what is no pair of turns')
    said, answered = (turns.content(part, "history") for part in element)
    return [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
