"""What a chat request may say about its prompt. Knows JSON only, and no tokenizer.

A request is *plain* where its prompt follows from roles and texts alone: then the gate
encodes it itself (see `encoding`), token by token as the trainer does. Every other request
that is served here is rendered by vLLM, in whose prompt a control token that is spelled in
a text becomes one; `prompt_texts` lists what must therefore spell none.
"""

import json
from collections.abc import Iterator
from typing import Any

from rewardloop.errors import NotServed

ROLES = ("assistant", "developer", "system", "tool", "user")
"""A template may build a control token from a role (`<|` + role + `|>`), so none is free."""
PLAIN_ROLES = ("assistant", "system", "user")
TEXT_PARTS = ("text", "input_text", "output_text")
_REMARKS = {"annotations", "cache_control"}
"""What a part may say beside its text; no template shows it."""

_CHANGES_THE_PROMPT = (
    "tools",
    "reasoning_effort",
)
_SHOWN_OF_A_MESSAGE = (
    "name",
    "reasoning",
    "reasoning_content",
    "task",
    "tool_call_id",
    "tool_calls",
    "tools",
)
"""What vLLM hands to a template beside role and content; it leaves everything else out."""
_NEVER_IN_THE_PROMPT = {
    "model",
    "stop",
    "user",
    "structured_outputs",
}


def require_text(request: dict[str, Any]) -> None:
    """
    Raises:
        NotServed: a message holds something else than text, or has a role of its own.
    """
    for message in _messages(request):
        _require_text(message)


def _require_text(message: dict[str, Any]) -> None:
    role = message.get("role")
    if isinstance(role, str) and role not in ROLES:
        raise NotServed(f"the role {role[:40]!r} is unknown; use one of {', '.join(ROLES)}")
    content = message.get("content")
    for part in content if isinstance(content, list) else []:
        if text_of(part) is None:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise NotServed(f"a content part of type {kind!r} is not served here: send text")


def text_of(part: Any) -> str | None:
    """The text of a content part; None where it is something else."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.keys() - {"type", "text", *_REMARKS}:
        return None
    text = part.get("text")
    return text if isinstance(text, str) and part.get("type", "text") in TEXT_PARTS else None


def begins_answer(request: dict[str, Any]) -> bool:
    """Whether the last message is the beginning of the answer, which the model goes on with."""
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and len(messages) > 1 else None
    return (
        request.get("continue_final_message") is True
        and request.get("add_generation_prompt") is False
        and isinstance(last, dict)
        and last.get("role") == "assistant"
    )


def plain_messages(request: dict[str, Any]) -> list[dict[str, str]] | None:
    """Roles and texts, from which alone the prompt follows; None where it needs more.

    Content parts are joined by line ends, as vLLM joins them.
    """
    if any(request.get(field) for field in _CHANGES_THE_PROMPT):
        return None
    if not (begins_answer(request) or _asks_for_answer(request)):
        return None
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    found = [_plain(message) for message in messages]
    return None if None in found else [message for message in found if message is not None]


def _asks_for_answer(request: dict[str, Any]) -> bool:
    ends = request.get("add_generation_prompt") in (None, True)
    return ends and not request.get("continue_final_message")


def _plain(message: Any) -> dict[str, str] | None:
    if not isinstance(message, dict) or message.get("role") not in PLAIN_ROLES:
        return None
    if any(message.get(field) for field in _SHOWN_OF_A_MESSAGE):
        return None
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [text for part in parts if (text := text_of(part)) is not None]
    if len(texts) < len(parts):
        return None
    return {"role": message["role"], "content": "\n".join(texts)}


def prompt_texts(request: dict[str, Any]) -> list[str]:
    """Every text that vLLM's rendering could bring into the prompt: values, then names.

    Raises:
        NotServed: the request is nested deeper than any template looks.
    """
    fields = {key: value for key, value in request.items() if key not in _NEVER_IN_THE_PROMPT}
    try:
        return [*_values(fields), *_names(fields)]
    except RecursionError as error:
        raise NotServed("the request is nested too deeply; send it flat") from error


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from _values(_decoded(value))
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _names(_decoded(value))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def _decoded(text: str) -> Any:
    """What JSON inside a text holds: vLLM decodes a tool call's arguments before it renders."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages")
    found = messages if isinstance(messages, list) else []
    return [message for message in found if isinstance(message, dict)]
