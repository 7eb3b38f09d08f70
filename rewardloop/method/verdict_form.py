"""How a verdict of one kind is spelled, and what is kept of one that was found. Pure.

The kinds are a score (`score_form`) and a preference (`comparison`); `verdict` reads both by
their forms. Knows no text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
"""What a verdict is: a score or a preference."""

PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff\ufe0f"
"""Arrows, marks and emoji, for a character class: what judges put around a verdict."""
REPORTS = r"says?|said|claims?|writes?|wrote|asks?|demands?|itself|quot\w{1,5}"
"""Words after a verdict by which it is somebody else's."""


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
    """One verdict in a judge's text."""

    value: T
    end: int
    """Where it ends in what was written."""
    is_total: bool = False
    is_bare: bool = False
