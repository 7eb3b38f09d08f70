"""From turns to a `PromptRecord`.

Owns what every format must hold to: the conversation ends in a user's turn that
is not blank, and every text can be stored in Postgres. A reference that is
blank is no reference.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rewardloop.datasets import fields
from rewardloop.datasets.fields import Raw
from rewardloop.records import Message, PromptRecord, Role
from rewardloop.texts import check_storable


def prompt_record(messages: Sequence[Message], reference: str | None, source: str) -> PromptRecord:
    """The record of these messages.

    Raises:
        ValueError: there is no user's turn at the end, it is blank, or a text is unstorable.
    """
    if not messages:
        raise ValueError("there are no messages")
    last = messages[-1]
    if last["role"] != "user":
        raise ValueError(f"the prompt ends in the turn of role {last['role']}, not of the user")
    if not last["content"].strip():
        raise ValueError("prompt is empty")
    for words in (source, reference or "", *(m["content"] for m in messages)):
        check_storable(words)
    kept = reference if reference and reference.strip() else None
    return PromptRecord(messages=tuple(messages), reference=kept, source=source)


def from_user(content: str) -> list[Message]:
    """A conversation of one turn."""
    return [{"role": "user", "content": content}]


def with_input(instruction: str, input_text: str | None) -> list[Message]:
    """An instruction and, after a blank line, what it is about.

    Raises:
        ValueError: the instruction is blank, whatever the input holds.
    """
    if not instruction.strip():
        raise ValueError("prompt is empty")
    return from_user(f"{instruction}\n\n{input_text}" if input_text else instruction)


def turns(
    raws: Iterable[Raw], role_key: str, text_key: str, roles: Mapping[str, Role]
) -> Iterator[Message]:
    """The messages one by one, so that what nobody asks for is not checked."""
    for number, raw in enumerate(raws, start=1):
        try:
            role = fields.text(raw, role_key)
            content = fields.text(raw, text_key)
        except ValueError as error:
            raise ValueError(f"turn {number}: {error}") from None
        if role not in roles:
            known = ", ".join(roles)
            raise ValueError(f'turn {number}: "{role_key}" is "{role}", not one of {known}')
        yield {"role": roles[role], "content": content}


def up_to_first_answer(messages: Iterable[Message]) -> tuple[list[Message], str | None]:
    """The turns before the first assistant's turn that follows a user's, and that turn's text."""
    before: list[Message] = []
    for message in messages:
        if message["role"] == "assistant" and before and before[-1]["role"] == "user":
            return before, message["content"]
        before.append(message)
    return before, None


def numbered(prompt: PromptRecord, line: int) -> PromptRecord:
    """A source without an id of its own gets the line's number, as in `alpaca:#3`."""
    if ":" in prompt.source:
        return prompt
    return replace(prompt, source=f"{prompt.source}:#{line}")
