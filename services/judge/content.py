"""What the judge takes of an OpenAI message: its text, and nothing that it would not see.

A judge that cannot see a picture must not grade the answer to it. So a message that
holds anything but text is refused with the reason, never graded without it.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator

_NOT_SHOWN = frozenset({"role", "content", "name", "reasoning", "reasoning_content"})
"""Fields of a message that are read, or that are no part of what a user sees."""


_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_OF_A_TEXT_PART = frozenset({"type", "text", "annotations", "cache_control", "logprobs"})


def _as_text(content: Any) -> Any:
    """A string as it is, text parts joined by newlines."""
    if not isinstance(content, list):
        return content
    if not content:
        raise ValueError("an empty list of parts holds no text to judge")
    return "\n".join(_text_of(number, part) for number, part in enumerate(content))


def _text_of(number: int, part: Any) -> str:
    if isinstance(part, str):
        raise ValueError(
            f"part {number} is a bare string; send one string as content, or parts of the form "
            '{"type": "text", "text": ...}'
        )
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS:
        named = f"of type {kind!r}" if isinstance(kind, str) else "without a type"
        raise ValueError(
            f"part {number} is {named}, and the judge reads text alone: pictures, sound and files "
            "are not judged"
        )
    if not isinstance(part.get("text"), str):
        raise ValueError(f"part {number} is of type {kind!r}, and its `text` is no string")
    if unread := sorted(key for key in part.keys() - _OF_A_TEXT_PART if part[key]):
        raise ValueError(f"part {number} holds `{unread[0]}`, which is not read by the judge")
    text: str = part["text"]
    return text


Text = Annotated[str, BeforeValidator(_as_text)]


def refuse_unread_fields(turn: Any) -> Any:
    """
    Raises:
        ValueError: a message holds a picture, a tool call or the like beside its content.
    """
    if isinstance(turn, dict):
        for field, value in turn.items():
            if field not in _NOT_SHOWN and value:
                raise ValueError(f"`{field}` is not read by the judge; send role and content alone")
    return turn


def refuse_half_surrogates(body: Any) -> Any:
    """
    Raises:
        ValueError: a text anywhere in the body holds half a surrogate pair, which is no
            character and cannot be sent on.
    """
    for text in _texts(body):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ValueError(
                f"a text holds half a surrogate pair (\\u{code:04x}); a client may have cut an "
                "emoji in two"
            ) from None
    return body


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
