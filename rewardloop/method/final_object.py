"""The JSON object with which a judge ends, and the verdict in it. Pure text.

The object stands at the end of the judge's words, bare or in a code fence. One that somebody
else is said to have written is no verdict. Bounded in time: only so many characters and
objects are tried.
"""

import json
import re
from dataclasses import dataclass

from rewardloop.method.introductions import SPEECH, introduces_quotation
from rewardloop.method.own_words import OwnWords
from rewardloop.method.verdict_form import Form, Found, T

_OPENING_FENCE = re.compile(
    r"^[ \t]*+(?:`{3,}+|~{3,}+)[ \t]*+(?:json5?)?+[ \t\r]*+\n", re.IGNORECASE | re.MULTILINE
)
_CLOSING_FENCE = re.compile(r"\n[ \t]*+(?:`{3,}+|~{3,}+)[ \t\r]*+\Z")
_MAX_FENCE_CHARACTERS = 80
_OBJECT = re.compile(r"^[ \t]*+\{", re.MULTILINE)
_MAX_OBJECT_CHARACTERS = 40_000
_MAX_OBJECTS_TRIED = 3


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What may be the object, and what stands before it."""

    text: str
    before: str


def final_object(own: OwnWords, end: int, form: Form[T]) -> list[Found[T]]:
    """The verdict in a JSON object, or in a fenced one, with which the text up to `end` ends."""
    text = own.unquoted[:end].rstrip()
    for candidate in _candidates(text):
        value = _value_of(candidate.text, form)
        if value is not None and not _is_reported(candidate.before, own):
            return [Found(value, len(text))]
    return []


def _candidates(text: str) -> list[_Candidate]:
    floor = max(0, len(text) - _MAX_OBJECT_CHARACTERS)
    fence = _CLOSING_FENCE.search(text, max(0, len(text) - _MAX_FENCE_CHARACTERS))
    if fence is not None:
        return _in_fence(text[: fence.start()].rstrip(), floor)
    if not text.endswith("}"):
        return []
    starts = _starts(text, floor)[:_MAX_OBJECTS_TRIED]
    starts.append(text.rfind("{"))
    return [_Candidate(text[at:], text[:at]) for at in starts if at >= 0]


def _in_fence(text: str, floor: int) -> list[_Candidate]:
    """The first object behind the last opening fence; what is before it is before the fence."""
    opened = list(_OPENING_FENCE.finditer(text, floor))[-1:]
    if not opened or not text.endswith("}"):
        return []
    starts = [at for at in _starts(text, floor) if at >= opened[0].end()][:1]
    return [_Candidate(text[at:], text[: opened[0].start()]) for at in starts]


def _starts(text: str, floor: int) -> list[int]:
    return [match.end() - 1 for match in _OBJECT.finditer(text, floor)]


def _value_of(text: str, form: Form[T]) -> T | None:
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    values = (v for k, v in found.items() if k.lower().replace(" ", "_") in form.keys)
    return next((v for v in map(form.json_value, values) if v is not None), None)


def _is_reported(before: str, own: OwnWords) -> bool:
    """Whether what follows these words is somebody else's."""
    start = before.rstrip().rfind("\n") + 1
    line = before[start:].rstrip()
    if line and not own.text[start : start + len(line)].strip():
        return True
    if before.endswith("\n") or not line:
        return introduces_quotation(line)
    return SPEECH.search(line[-200:]) is not None or introduces_quotation(line)
