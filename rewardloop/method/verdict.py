"""What a judge's text says in the end: its verdict, or why it has none. Pure text.

Shared by the rubric (a score) and the comparison (a preference), which give the
form that they ask for. Invariants: only the judge's own words count (`own_words`);
the first verdict is the one, and what the judge invents after it (another request,
another response) is neither read nor trained on; a text that was cut has a verdict
only where its last line is a whole one. `docs/decisions/0014` gives the reasons.
"""

# ruff: noqa: RUF001 (judges and tokenizers write these characters)

import json
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rewardloop.method.own_words import (
    SPEECH,
    OwnWords,
    introduces_quotation,
    lines_of,
    own_words,
)
from rewardloop.records import UnscoredReason

T = TypeVar("T")
"""What a verdict is: a score or a preference."""

_INVENTED = re.compile(
    r"[ \t]*+(?:<(?:request|response|first_response|second_response)>"
    r"|[*_#\[( \t-]*+(?:user|human|assistant|system|(?:new |next |another )?+(?:request|response"
    r"|question|prompt|example|task|conversation)|instructions?|input)"
    r"(?:[ \t]\d{1,3}|[ \t][A-Z])?+[*_\])]*+[ \t]*+(?:[:：]|[ \t\r]*+$)"
    r"|You (?:grade an assistant's response|compare two responses))",
    re.IGNORECASE,
)
"""How a line begins with which a judge starts on another example."""

_OWN_CLAUSE = re.compile(
    r"\b(?:I|we|my|overall|so|thus|hence|therefore|finally|final|total|gets?|earns?|deserves?"
    r"|receives?|merits?|warrants?|rated|graded|(?:this|that|which) gives|result(?:s|ing) in"
    r"|leading to)\b",
    re.IGNORECASE,
)
"""What a clause holds in which the judge speaks of its own verdict."""
_OTHERS_WISH = re.compile(
    r"n['’]t\b|\b(?:not|never|cannot|without|itself|asks?|asked|asking|wants?|wanted|wish(?:es)?"
    r"|tries|tried|trying|attempts?|demands?|begs?|hopes?|tells?|told|requests?|orders?|commands?"
    r"|instructs?|refuses?|instead|than|almost|nearly|would have|could have)\b",
    re.IGNORECASE,
)
"""What it holds where the verdict is not given: somebody else wants it, or it is denied."""
_WOULD = re.compile(r"\b(?:would|could|might|may)\b", re.IGNORECASE)
_SUPPOSES = re.compile(r"\W*(?:if|had|were|unless)\b", re.IGNORECASE)
_IF = re.compile(r"\b(?:if|had|were|unless)\b", re.IGNORECASE)
_SENTENCES = ("given", "rated", "told")
"""Groups of a form's `sentence_end` that stand for a sentence without the form's label."""
_CONNECTIVES = re.compile(
    r"\W*(?:(?:so|thus|hence|therefore|overall|finally|and|but|in (?:summary|conclusion|total)"
    r"|all in all|based on [^,\n]{1,80})\W+)*",
    re.IGNORECASE,
)
"""What may stand before such a sentence: no condition, and nobody else's opinion."""
_SENTENCE_END = re.compile(r"[.!?。]")
_LABELS_OF_VERDICTS = re.compile(
    r"(?:verdict|conclusion|grade|judge?ment|result|answer|evaluation|assessment|summary)[ \t*_]*+:"
    r"[ \t*_]*+$",
    re.IGNORECASE,
)
PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff\ufe0f"
"""Arrows, marks and emoji, for a character class: what judges put around a verdict."""
REPORTS = r"says?|said|claims?|writes?|wrote|asks?|demands?|itself|quot\w{1,5}"
"""Words after a verdict by which it is somebody else's."""
_CLAUSE_END = re.compile(r"[.!?;,:—–。、]")
_QUOTE_MARKS = frozenset("\"'`“”„‘’«»")
_CLOSING_FENCE = re.compile(r"\n[ \t]*+(?:`{3,}+|~{3,}+)[ \t\r]*+\Z")
_OPENING_FENCE = re.compile(r"^[ \t]*+(?:`{3,}+|~{3,}+)[ \t]*+(?:json5?)?+[ \t\r]*+\n", re.I | re.M)
_OBJECT = re.compile(r"^[ \t]*+\{", re.MULTILINE)
_MAX_OBJECT_CHARACTERS = 40_000
_MAX_OBJECTS_TRIED = 3


_CUT = frozenset({"length", "max_tokens", "model_length", "content_filter", "abort", "error"})
"""Finish reasons of the field's servers after which a text may lack its end."""


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How a verdict of one kind is spelled."""

    line: re.Pattern[str]
    """One that stands alone on its line, or on this line and the next."""
    whole_last_line: re.Pattern[str]
    """What counts too where it is the whole last line."""
    sentence_end: re.Pattern[str]
    """How the last line may end, after words of the judge's own."""
    keys: frozenset[str]
    """Those of a JSON object that name the verdict."""
    value: Callable[[re.Match[str]], T]
    json_value: Callable[[Any], T | None]
    is_total: Callable[[re.Match[str]], bool]
    """Whether a line is said to be the total: what comes before it are parts."""
    is_bare: Callable[[re.Match[str]], bool]
    """Whether a line may be about something else ("Total: 12" of a sum that the judge checks):
    a verdict after it takes its place."""
    may_go_on: re.Pattern[str]
    """A last line after which, in a text that was cut, the verdict may have gone on."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    value: T
    end: int
    """Where it ends in what was written."""
    is_total: bool = False
    is_bare: bool = False


@dataclass(frozen=True, slots=True)
class _Judgement(Generic[T]):
    """What is read of a text: the verdicts, and where the judge's words on this response end."""

    verdicts: list[Found[T]]
    end: int
    goes_on: bool
    """The judge went on to another example."""


def read(
    written: str, finish_reason: str | None, form: Form[T]
) -> tuple[T | None, UnscoredReason | None]:
    """The verdict, or why there is none: one of the two is None."""
    own = own_words(written)
    judgement = _judgement(own, form)
    cut = str(finish_reason or "").lower() in _CUT
    if own.is_unfinished and cut:
        return None, UnscoredReason.TRUNCATED
    if (cut or own.is_unfinished) and not _ends_in_verdict(own, judgement, form):
        return None, UnscoredReason.TRUNCATED
    if not judgement.verdicts:
        return None, UnscoredReason.NO_SCORE
    values = {found.value for found in judgement.verdicts}
    return (values.pop(), None) if len(values) == 1 else (None, UnscoredReason.CONFLICTING)


def through_verdict(written: str, form: Form[Any]) -> str:
    """What was written up to its first verdict; all of it where there is none."""
    judgement = _judgement(own_words(written), form)
    if not judgement.verdicts:
        return written
    return written[: min(found.end for found in judgement.verdicts)].rstrip()


def _ends_in_verdict(own: OwnWords, judgement: _Judgement[Any], form: Form[Any]) -> bool:
    if not judgement.verdicts:
        return False
    end = max(found.end for found in judgement.verdicts)
    if own.unquoted[end : judgement.end].strip():
        return False
    return judgement.goes_on or form.may_go_on.search(own.unquoted) is None


def _judgement(own: OwnWords, form: Form[T]) -> _Judgement[T]:
    """The verdicts before the line at which the judge starts on another example, if it does."""
    alone = [_found(match, form) for match in form.line.finditer(own.text)]
    last: tuple[int, str] = (0, "")
    tried_object = False
    for start, line in lines_of(own.text):
        if _INVENTED.match(line):
            before = alone[: bisect_right(alone, start, key=lambda found: found.end)]
            if not before:
                before = _in_last_line(*last, form)
            if not before and not tried_object:
                before, tried_object = _final_object(own, start, form), True
            if before:
                return _Judgement(_without_parts(before), start, goes_on=True)
        if line.strip():
            last = (start, line)
    found = alone
    if not (alone and alone[-1].end > last[0]):
        end = len(own.text)
        found = alone + (_in_last_line(*last, form) or _final_object(own, end, form))
    return _Judgement(_without_parts(found), len(own.text), goes_on=False)


def _found(match: re.Match[str], form: Form[T], offset: int = 0) -> Found[T]:
    end = match.end() + offset
    return Found(form.value(match), end, form.is_total(match), form.is_bare(match))


def _without_parts(verdicts: list[Found[T]]) -> list[Found[T]]:
    """A total takes the place of what was written before it, and a named score of a bare one."""
    last_named = max((i for i, found in enumerate(verdicts) if not found.is_bare), default=0)
    verdicts = [v for i, v in enumerate(verdicts) if not v.is_bare or i >= last_named]
    first = next((i for i, found in enumerate(verdicts) if found.is_total), 0)
    return verdicts[first:]


def _in_last_line(start: int, line: str, form: Form[T]) -> list[Found[T]]:
    match = form.whole_last_line.fullmatch(line)
    if match is None:
        match = form.sentence_end.search(line)
        if match is None or not _is_own_sentence(line[: match.start()], match):
            return []
    return [_found(match, form, start)]


def _is_own_sentence(before: str, verdict: re.Match[str]) -> bool:
    """Whether the judge speaks for itself in the words before a verdict on the same line."""
    if verdict[0].rstrip(" \t\r.*_")[-1:] in _QUOTE_MARKS or before.count('"') % 2:
        return False
    if verdict.groupdict().get("result") is not None:
        return before.rstrip(" \t*_")[-1:] not in _QUOTE_MARKS
    if any(map(verdict.groupdict().get, _SENTENCES)):
        return _CONNECTIVES.fullmatch(_SENTENCE_END.split(before)[-1]) is not None
    before = before.rstrip(" \t*_#")
    in_brackets = before.endswith(("(", "["))
    before = before.rstrip("([ \t*_#")
    if before.endswith(":"):
        return bool(_LABELS_OF_VERDICTS.search(before[-60:]))
    clause = _CLAUSE_END.split(before[-200:])[-1]
    if before[-1:] in _QUOTE_MARKS and not in_brackets and clause:
        return False
    if SPEECH.search(clause) or _OTHERS_WISH.search(clause):
        return False
    sentence = _SENTENCE_END.split(before[-200:])[-1]
    if _SUPPOSES.match(sentence) or (_WOULD.search(clause) and _IF.search(sentence)):
        return False
    return in_brackets or not clause.strip() or bool(_OWN_CLAUSE.search(clause))


def _final_object(own: OwnWords, end: int, form: Form[T]) -> list[Found[T]]:
    """The verdict in a JSON object, or in a fenced one, with which the text up to `end` ends."""
    text = own.unquoted[:end].rstrip()
    end, floor = len(text), max(0, len(text) - _MAX_OBJECT_CHARACTERS)
    fence = _CLOSING_FENCE.search(text, max(0, end - 80))
    starts = [match.end() - 1 for match in _OBJECT.finditer(text, floor)]
    if fence:
        text = text[: fence.start()].rstrip()
        opened = list(_OPENING_FENCE.finditer(text, floor))[-1:]
        starts = [at for at in starts if opened and at >= opened[0].end()][:1]
        before = text[: opened[0].start()] if opened else ""
    if not text.endswith("}"):
        return []
    if not fence:
        starts = [*starts[:_MAX_OBJECTS_TRIED], text.rfind("{")]
        starts = [at for at in starts if at >= 0]
    for at in starts:
        value = _value_of_object(text[at:], form)
        if value is not None and not _is_reported(text[:at] if not fence else before, own):
            return [Found(value, end)]
    return []


def _is_reported(before: str, own: OwnWords) -> bool:
    """Whether what follows these words is somebody else's."""
    start = before.rstrip().rfind("\n") + 1
    line = before[start:].rstrip()
    if line and not own.text[start : start + len(line)].strip():
        return True
    if before.endswith("\n") or not line:
        return introduces_quotation(line)
    return SPEECH.search(line[-200:]) is not None or introduces_quotation(line)


def _value_of_object(text: str, form: Form[T]) -> T | None:
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    values = (v for k, v in found.items() if k.lower().replace(" ", "_") in form.keys)
    return next((v for v in map(form.json_value, values) if v is not None), None)
