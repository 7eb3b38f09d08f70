"""TRL's dataset types, standard (texts) and conversational (messages).

Prompt-only, prompt-completion, preference (paired, unpaired, and with an
implicit prompt where it is conversational) and language modelling over
`messages`. A rejected answer is never a reference.
"""

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import (
    from_user,
    prompt_record,
    turns,
    up_to_first_answer,
)
from rewardloop.datasets.fields import Raw
from rewardloop.records import Message, PromptRecord, Role

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_KEYS = ("role", "content", _ROLES)


def record(raw: Raw) -> list[PromptRecord]:
    """The prompt of a row, with its completion or chosen answer as the reference.

    Raises:
        ValueError: there is no prompt, it does not end in a user's turn, or a turn is malformed.
    """
    messages, reference = _prompt_and_reference(raw)
    return [prompt_record(messages, reference, fields.source("trl", raw, "prompt_id", "id"))]


def _prompt_and_reference(raw: Raw) -> tuple[list[Message], str | None]:
    if "prompt" in raw:
        return _prompt(raw), _reference(raw)
    if "messages" in raw:
        return up_to_first_answer(turns(fields.children(raw, "messages"), *_KEYS))
    if isinstance(raw.get("chosen"), list):
        messages = _messages(raw, "chosen")
        return messages[:-1], _last_answer(messages, "chosen")
    raise ValueError('there is neither "prompt" nor "messages" nor a conversation in "chosen"')


def _prompt(raw: Raw) -> list[Message]:
    if isinstance(raw["prompt"], list):
        return _messages(raw, "prompt")
    return from_user(fields.text(raw, "prompt"))


def _reference(raw: Raw) -> str | None:
    """An unpaired row's completion with `label` false is a bad answer, so it is none."""
    if raw.get("label") is False:
        return None
    for key in ("completion", "chosen"):
        if isinstance(raw.get(key), list):
            return _last_answer(_messages(raw, key), key)
        if raw.get(key) is not None:
            return fields.text(raw, key)
    return None


def _messages(raw: Raw, key: str) -> list[Message]:
    try:
        return list(turns(fields.children(raw, key), *_KEYS))
    except ValueError as error:
        raise ValueError(f'in "{key}", {error}') from None


def _last_answer(messages: list[Message], key: str) -> str:
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError(f'"{key}" does not end in a turn of the assistant')
    return messages[-1]["content"]
