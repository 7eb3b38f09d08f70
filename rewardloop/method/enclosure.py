"""What others wrote, made ready to stand in a judge's prompt. Pure text.

A judge's prompt holds requests and responses between tags. What stands there
is material: no text can close its tags or open others, spell a control token, or
begin a turn of the conversation that it stands in. Score lines in it are left as
they are, since a judge's quotations do not count (see `own_words`). Knows no rubric.
"""

import re
from collections.abc import Callable, Sequence

from rewardloop.method.control_tokens import defused
from rewardloop.records import Message


def escaping(*tags: str) -> Callable[[str], str]:
    """A function that spells `<` as `&lt;` wherever a text opens or closes one of `tags`, and
    defuses control tokens."""
    # Possessive quantifiers keep this linear in what was written.
    tag = re.compile(rf"<(?=\s*+/?+\s*+(?:{'|'.join(tags)})\b)", re.IGNORECASE)

    def escaped(text: str) -> str:
        return defused(tag.sub("&lt;", text))

    return escaped


_ROLE_LABEL = re.compile(
    r"^([ \t]*+(?:system|user|assistant)[ \t]*+):", re.IGNORECASE | re.MULTILINE
)


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as one text; a single turn is its own text."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def material(messages: Sequence[Message]) -> str:
    """A conversation as a judge is shown it: `transcript`, in which a line of a turn's text
    that reads like the start of another turn ("assistant: ...") has `&#58;` for its colon."""
    if len(messages) == 1:
        return messages[0]["content"]
    return transcript(
        [{**m, "content": _ROLE_LABEL.sub(r"\1&#58;", m["content"])} for m in messages]
    )


def split_response(conversation: Sequence[Message]) -> tuple[list[Message], str]:
    """The request, and the response that the conversation ends in.

    Raises:
        ValueError: the conversation does not end in an assistant's turn after a user's.
    """
    request, last = list(conversation[:-1]), conversation[-1:]
    ends_in_response = last and last[0]["role"] == "assistant"
    if not ends_in_response or not any(m["role"] == "user" for m in request):
        raise ValueError(
            "the conversation to judge must hold a user's turn and end in the assistant's response"
        )
    return request, last[0]["content"]
