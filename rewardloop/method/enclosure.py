"""What others wrote, made ready to stand in a judge's prompt. Pure text.

A judge's prompt holds requests and responses between tags. What stands there
is material: no text can close its tags, or open others. Knows no rubric.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

from rewardloop.records import Message


def escaping(*tags: str) -> Callable[[str], str]:
    """A function that spells `<` as `&lt;` wherever a text opens or closes one of `tags`."""
    # Possessive quantifiers keep this linear in what was written.
    tag = re.compile(rf"<(?=\s*+/?+\s*+(?:{'|'.join(tags)})\b)", re.IGNORECASE)
    return partial(tag.sub, "&lt;")


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as one text; a single turn is its own text."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def split_response(conversation: Sequence[Message]) -> tuple[list[Message], str]:
    """The request, and the response that the conversation ends in.

    Raises:
        ValueError: the conversation does not end in an assistant's turn after a user's.
    """
    *request, response = conversation
    if response["role"] != "assistant" or not any(m["role"] == "user" for m in request):
        raise ValueError(
            "the conversation to judge must hold a user's turn and end in the assistant's response"
        )
    return request, response["content"]
