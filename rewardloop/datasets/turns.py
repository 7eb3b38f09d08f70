"""Reads lists of turns, in all the ways that files write them.

Owns the names of roles and of a turn's keys, and what a turn may not hold:
pictures, tool calls, hidden reasoning. Turns are read one by one, so that what
nobody asks for is not checked. Knows no format.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rewardloop.datasets import fields, meaning
from rewardloop.datasets.fields import names
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import parsed, says_something
from rewardloop.records import Message, Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
}
_TOOL_ROLES = names(
    """
    tool function function_call function_response observation tool_call tool_calls tool_response
    tool_result ipython environment code_execution_result
    """
)
_ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "text", "message", "parts")
_MEDIA_KEYS = ("images", "image", "audio", "audios", "video", "videos", "files", "attachments")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id", "tools", "functions")
_LEARNT_KEYS = ("weight", "train", "training", "loss", "loss_mask", "loss_weight", "trainable")
_TURN_KEYS = frozenset({*_ROLE_KEYS, *_TEXT_KEYS, *_LEARNT_KEYS})
_OTHER_MEANING = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thought",
    "refusal",
    "mask",
    "label",
    "rating",
    "score",
    "chosen",
    "rejected",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, and whether its author means it to be learnt."""

    role: Role
    content: str
    is_learnt: bool = True

    @property
    def message(self) -> Message:
        return {"role": self.role, "content": self.content}


def is_turns(value: object) -> bool:
    """Whether a value looks like a list of turns, or a turn."""
    value = parsed(value)
    if isinstance(value, dict):
        return _has_turn_keys(value)
    return isinstance(value, list) and all(isinstance(t, dict) for t in value) and bool(value)


def _has_turn_keys(raw: Mapping[str, object]) -> bool:
    return any(key in raw for key in _ROLE_KEYS) and any(key in raw for key in _TEXT_KEYS)


def read(value: object, column: str) -> Iterator[Turn]:
    """The turns of a column: role and text, `{"input", "output"}`, or texts that alternate.

    Raises:
        ValueError: a turn is malformed.
        RowLeftOut: a turn holds what cannot be trained on.
    """
    value = parsed(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f'"{column}" is {fields.kind_of(value)}, not a list')
    for number, raw in enumerate(cast(list[object], value), start=1):
        try:
            yield from _turns(raw, number)
        except RowLeftOut as error:
            raise RowLeftOut(error.reason, f'in "{column}", turn {number}: {error}') from None
        except ValueError as error:
            raise ValueError(f'in "{column}", turn {number}: {error}') from None


def _turns(raw: object, number: int) -> Iterator[Turn]:
    if isinstance(raw, str):
        yield Turn("user" if number % 2 else "assistant", raw)
        return
    if not isinstance(raw, dict):
        raise ValueError(f"it is {fields.kind_of(raw)}, not an object")
    turn = cast(Mapping[str, object], raw)
    if "input" in turn and "output" in turn and not any(key in turn for key in _ROLE_KEYS):
        yield Turn("user", content(turn["input"], "input"))
        yield Turn("assistant", content(turn["output"], "output"))
        return
    yield _turn(turn)


def _turn(raw: Mapping[str, object]) -> Turn:
    role = _role(raw)
    _check_keys(raw)
    key = next((key for key in _TEXT_KEYS if raw.get(key) is not None), None)
    if key is None:
        present = next((key for key in _TEXT_KEYS if key in raw), None)
        raise ValueError(f'"{present}" is null' if present else '"content" is missing')
    return Turn(role, content(raw[key], key), _is_learnt(raw))


def _role(raw: Mapping[str, object]) -> Role:
    key = next((key for key in _ROLE_KEYS if key in raw), None)
    if key is None:
        raise ValueError('"role" is missing')
    name = fields.text(raw, key).strip().lower()
    if name in _TOOL_ROLES:
        raise RowLeftOut(Reason.TOOL_TURNS, f'it is of the role "{name}"')
    if name not in _ROLES:
        raise ValueError(f'"{key}" is "{raw[key]}", not one of {", ".join(_ROLES)}')
    return _ROLES[name]


def _check_keys(raw: Mapping[str, object]) -> None:
    for keys, reason in (
        (_TOOL_KEYS, Reason.TOOL_TURNS),
        (_MEDIA_KEYS, Reason.MEDIA),
        (_OTHER_MEANING, Reason.COLUMN_NOT_READ),
    ):
        for key in keys:
            if says_something(raw.get(key)):
                raise RowLeftOut(reason, f'its key "{key}" is not read')
    for key, value in raw.items():
        if key not in _TURN_KEYS and says_something(value) and meaning.speaks_of_answer(key, value):
            raise RowLeftOut(Reason.COLUMN_NOT_READ, f'its key "{key}" is not read')


def _is_learnt(raw: Mapping[str, object]) -> bool:
    """OpenAI's `weight`, Axolotl's `train` and `training`; a turn without them is learnt."""
    for key in _LEARNT_KEYS:
        value = raw.get(key)
        if value is not None and str(value).strip().lower() in ("0", "0.0", "false", "no"):
            return False
    return True


def content(value: object, key: str) -> str:
    """A text, or text parts, joined by a newline where their author left no white space.

    Raises:
        ValueError: the value is neither a text nor parts.
        RowLeftOut: a part is no text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _part(cast(Mapping[str, object], value))
    if not isinstance(value, list):
        raise ValueError(f'"{key}" is {fields.kind_of(value)}, not a text')
    return _joined([_any_part(part, key) for part in cast(list[object], value)])


def _joined(parts: Sequence[str]) -> str:
    whole = ""
    for part in parts:
        needs_break = bool(whole) and not whole[-1].isspace() and not part[:1].isspace()
        whole += f"\n{part}" if needs_break else part
    return whole


def _any_part(part: object, key: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        return _part(cast(Mapping[str, object], part))
    raise ValueError(f'"{key}" holds {fields.kind_of(part)}, not a text part')


def _part(part: Mapping[str, object]) -> str:
    kind = part.get("type")
    text = part.get("text")
    if kind not in (None, "text", "input_text", "output_text") or not isinstance(text, str):
        raise RowLeftOut(Reason.MEDIA, f'a part of it is of the type "{kind}", not a text')
    others = (key for key in part if key not in ("type", "text", "annotations", "cache_control"))
    if extra := next((key for key in others if says_something(part[key])), None):
        raise RowLeftOut(Reason.MEDIA, f'a text part of it also holds "{extra}"')
    return text
