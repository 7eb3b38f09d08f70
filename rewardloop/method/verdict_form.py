"""How a verdict of one kind is spelled, and what is kept of one that was found. Pure.

The kinds are a score (`score_form`) and a preference (`comparison`); `verdict` reads both by
their forms. Knows no text.
"""

# ruff: noqa: RUF001 (judges write these characters)

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rewardloop.method.nonce import MARK, NUM_DIGITS

T = TypeVar("T")
"""What a verdict is: a score or a preference."""

PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff\ufe0f"
"""Arrows, marks and emoji, for a character class: what judges put around a verdict."""
REPORTS = r"says?|said|claims?|writes?|wrote|asks?|demands?|itself|quot\w{1,5}"
"""Words after a verdict by which it is somebody else's."""

_NO_JOINT = rf"\w\n.,;!?&/+−{MARK}"
"""What ends a sentence, or begins another word or number."""


def signed_by(label: str) -> str:
    """The nonce with what joins it to the verdict behind it, as a verbose pattern.

    A nonce that is merely mentioned ("I shall name 7f3a") joins nothing, unless `label` stands
    right before it.
    """
    return rf"""
    {MARK}++ (?P<labelled> (?<={label}[ ]{MARK * NUM_DIGITS}) )?+
    (?: [^{_NO_JOINT}:=|–—-] | _ ){{0,6}}+    # then the scale, "(0-5)"
    (?: (?<=[(]) [^()\n]{{1,12}} \) [ ]?+ )?+
    (?P<joined>
        (?: [:=|] | [-–—](?=[ \t]) | is[ ] )
        (?: <(?:total|which|score)> | \\boxed\{{ | [^{_NO_JOINT}-] | _ ){{0,10}}+
    )?+
    (?(joined) | (?(labelled) | (?!) ) )
    (?P<below> \n [\n*_#> \t]{{0,12}}+ )?+
    """


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How a verdict of one kind is spelled."""

    line: re.Pattern[str]
    """One that stands alone on its line, or on this line and the next."""
    whole_last_line: re.Pattern[str]
    """What counts too where it is the whole last line."""
    signed: re.Pattern[str]
    """One that names the nonce of its call, wherever it stands in a text that is `marked`."""
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
