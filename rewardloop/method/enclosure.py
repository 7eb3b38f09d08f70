"""What others wrote, made ready to stand in a judge's prompt. Pure text.

A judge's prompt holds requests and responses between tags. What stands there
is material: no text can close its tags or open others, spell a control token, or
begin a turn of the conversation that it stands in. Score lines in it are left as
they are, since a judge's quotations do not count (see `own_words`). Knows no rubric.
"""

# ruff: noqa: RUF001 (characters that look like ours)

import re
import unicodedata
from collections.abc import Callable, Sequence

from rewardloop.method.control_tokens import defused
from rewardloop.records import Message

_LESS_THAN = re.compile("[<＜﹤]")
_MAX_READ = 64
"""Characters behind a `<` in which a tag's name is looked for, and before a colon a role's."""


def escaping(*tags: str) -> Callable[[str], str]:
    """A function that spells `<` as `&lt;` wherever a reader sees a text open or close one of
    `tags`, and defuses control tokens."""
    tag = re.compile(rf"[\s/\\]*+(?:{'|'.join(tags)})\b", re.IGNORECASE)

    def as_text(match: re.Match[str]) -> str:
        behind = _as_read(match.string[match.end() : match.end() + _MAX_READ])
        return "&lt;" if tag.match(behind) else match[0]

    def escaped(text: str) -> str:
        return defused(_LESS_THAN.sub(as_text, text))

    return escaped


def _as_read(text: str) -> str:
    """Compatible forms as their plain letters, without invisible characters."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(char for char in plain if unicodedata.category(char) != "Cf")


_LINE_BREAKS = r"\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
_BEFORE_COLON = re.compile(
    rf"((?:\A|[{_LINE_BREAKS}])[^:：﹕︓{_LINE_BREAKS}]{{1,{_MAX_READ}}}+)[:：﹕︓]"
)
_ROLE = re.compile(r"\s*(?:system|user|assistant)\s*", re.IGNORECASE)


def _without_role_labels(text: str) -> str:
    def as_text(match: re.Match[str]) -> str:
        return f"{match[1]}&#58;" if _ROLE.fullmatch(_as_read(match[1])) else match[0]

    return _BEFORE_COLON.sub(as_text, text)


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
    return transcript([{**m, "content": _without_role_labels(m["content"])} for m in messages])


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
