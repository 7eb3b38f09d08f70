"""What a judge reads, and what is read from a judge. Pure text.

Two invariants keep a response from scoring itself: a score is only ever searched
in the judge's own words (see `own_words`), never in its prompt; and a response can
neither close the tags that enclose it nor spell a control token. The texts of the
rubrics are in `rubrics`.
"""

# ruff: noqa: RUF001 (judges and tokenizers write these characters)

import re
from collections.abc import Sequence
from math import inf
from typing import Any

from rewardloop.config.rubrics import Rubric
from rewardloop.method.enclosure import material, split_response
from rewardloop.method.rubrics import rubric_text
from rewardloop.method.verdict import PICTURES, REPORTS, Form, read, through_verdict
from rewardloop.records import JudgementMode, Message, UnscoredReason, Verdict

MAX_SCORE = 5
RUBRIC_VERSION = rubric_text("additive").version
"""That of the rubric that a judge is given unless asked otherwise."""

CONSTRAINED_PATTERN = r"[A-Z][A-Za-z ,']{10,60}\.\nScore: [0-5]"
"""Regular expression that the engine is held to in constrained mode: a short
sentence, then the score. Its alphabet is kept small so that the grammar
compiles at once."""

_MAX_WORDS = {JudgementMode.FREE: 100, JudgementMode.CONSTRAINED: 12}
# Possessive quantifiers keep these linear in what a judge wrote.
_LABEL = (
    r"(?:(?:my|the|a|grand|combined|awarded)[ \t]++){0,3}"
    r"(?:(?P<total>(?:final|total|overall"
    r"|(?:revised|corrected|adjusted|updated)(?= (?:score|total)))"
    r"(?:[ \t]++(?:final|total|overall|number of)){0,2}+"
    r"(?:[ \t]++(?:score|rating|grade|marks?|points?|verdict))?+)|score|rating|grade|verdict)"
    r"(?:[ \t]*+(?:\([\d \t/–-]{1,12}\)|\((?:out of|of|max\.?) ?5\)|out of 5))?+"
)
_VALUE = (
    r"[ \t*_`\"'”]*+(?:[:=|]|[-–—](?=[ \t])|(?=\r?\n)|(?(total)is\b|(?!)))"
    r"(?:[ \t\r*_`\"'“\[({$]|(?P<below>\n)|<total>|<(?=[^<>\n]{1,40}>))*+(?:\\boxed\{)?+"
    r"(?:(?:\d++[ \t]*+\+[ \t]*+)++\d++[ \t]*+=[ \t]*+)?+"
    r"(?P<score>[-−]?\d++(?:\.\d++)?+)"
)
_AFTER = (
    r"(?:</total>)?+[>\])}\"'”`*_$ \t]*+(?:points?\b|pts\b|stars?\b)?+"
    r"(?:[ \t]*+(?:/|out[ \t]of|of)[ \t]*+(?:a[ \t]maximum[ \t]of[ \t])?+"
    r"(?P<scale>\d++(?:\.\d++)?+))?+"
    rf"[>\])}}\"'”`*_$ \t{PICTURES}]*+(?:points?\b|pts\b|stars?\b)?+"
    r"(?:[ \t]*+(?:\([^()\n\d]{0,300}\)|\((?:out of |of |/ ?)5(?: points)?\)"
)
_END = rf"))?+[|. \t\r*_!`\"'”)\]>{PICTURES}]*+$"
_REST = rf"{_AFTER}|[-–—][ \t]++[^\n\d]{{1,300}}{_END}"
_EXPLAINED = (
    rf"{_AFTER}|(?(below)(?!))(?:[-–—.,;:][*_ \t]++|(?<!\w)(?=(?:because|since) \S))"
    rf"(?![^\n]{{0,300}}\b(?:{REPORTS})\b)"
    rf"[^\n\d]{{1,300}}{_END}"
)
"""What may follow a score that begins its line: not the rest of a list that is numbered."""
_FLAGS = re.IGNORECASE | re.MULTILINE
_OVERALL = r"(?:(?P<headed>overall|total|final)\b[^\n\d:=]{0,40}+:?[ \t\r*_]*+\n\s*+[*_#• \t-]*+)?"
"""A heading over the line, which is then no part of the sum."""
_SCORE = re.compile(
    rf"^(?!    |\t)[ *_#•{PICTURES}-]*+{_OVERALL}{_LABEL}{_VALUE}{_EXPLAINED}", _FLAGS
)
_LAST_LINE = re.compile(
    r"[\s*_#•-]*+<score>\s*+(?P<tagged>-?\d++(?:\.\d++)?+)\s*+(?:/\s*+5\s*+)?+</score>\s*+"
    rf"|(?:[\s*_#•{PICTURES}-]*+(?:\[\[(?P<listed>-?\d++(?:\.\d++)?+)\]\]"
    r"|<(?P<echoed>\d++(?:\.\d++)?+)>)"
    rf"|[\s*_#•|\"'“`(\[${PICTURES}-]*+(?:{_LABEL}{_VALUE}|(?<![-−])(?P<alone>\d++(?:\.\d++)?+)"
    r"(?=[ \t*_]*+(?:/|out of|points? out of)[ \t]*+\d)"
    r"|\\boxed\{(?P<boxed>-?\d++(?:\.\d++)?+)\}))"
    rf"{_REST}",
    re.IGNORECASE,
)
_PLAIN = (
    r"(?: (?:this|that|the|it|its|response|answer|a|an|overall|final|total|full|solid|strong|only"
    r"|just|as|at|out|with)\b){0,6}"
)
_POINTS = r"\d++(?:\.\d++)?+"
_GIVEN = (
    r"(?:\b(?:I|we)(?: would|['’]d| will|['’]ll)?(?: therefore| thus)?"
    r" (?:give|rate|assign|award|grade|score)"
    r"|\b(?:(?:this|the) (?:response|answer)|it|this) (?:gets|earns|deserves|merits|receives))"
    rf"{_PLAIN}(?: (?:score|rating|grade) of [*_]{{0,3}}(?P<given>{_POINTS})"
    rf"| [*_]{{0,3}}(?P<rated>{_POINTS})(?=[*_]{{0,3}} ?(?:/|out of|points out of)))"
    rf"|\b(?:the|my) score is [*_]{{0,3}}(?P<told>{_POINTS})"
)
"""Sentences of a judge that has no line for its score."""
_SENTENCE_END = re.compile(
    rf"(?<![\w/])(?:{_LABEL}{_VALUE}"
    rf"|\[RESULT\][\s:*_(<\[]*+(?P<result>-?\d++(?:\.\d++)?+)|{_GIVEN}){_REST}",
    re.IGNORECASE,
)
_NAMED = re.compile("score|rating|grade|mark|point", re.IGNORECASE)
_VALUE_GROUPS = (
    "score",
    "tagged",
    "alone",
    "listed",
    "echoed",
    "boxed",
    "result",
    "given",
    "rated",
    "told",
)
_KEYS = frozenset(
    {
        *("score", "total_score", "final_score", "overall_score", "total", "overall", "grade"),
        *("rating", "overall_rating", "final_rating", "points", "total_points"),
    }
)


def _value(match: re.Match[str]) -> float:
    """The points; infinite where they are of another scale, so that they are out of range."""
    groups = match.groupdict()
    score = next(groups[name] for name in _VALUE_GROUPS if groups.get(name) is not None)
    scale = groups["scale"]
    return float(score.replace("−", "-")) if scale is None or float(scale) == MAX_SCORE else inf


def _is_bare(match: re.Match[str]) -> bool:
    total = match.groupdict().get("total") or "score"
    return _NAMED.search(total) is None


def _json_value(value: Any) -> float | None:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*(?:/\s*5)?\s*", value)
        return float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(value) if abs(value) <= MAX_SCORE else inf


FORM: Form[float] = Form(
    line=_SCORE,
    whole_last_line=_LAST_LINE,
    sentence_end=_SENTENCE_END,
    keys=_KEYS,
    value=_value,
    json_value=_json_value,
    is_total=lambda match: any(match.groupdict().get(name) for name in ("total", "headed")),
    is_bare=_is_bare,
    may_go_on=re.compile(r"\d(?:\.|[^\n\d]*+(?<=[^\W\d_]|[,;:])(?<!points))\Z"),
)
"""How a score is spelled."""


def render(
    conversation: Sequence[Message], mode: JudgementMode, rubric: Rubric = "additive"
) -> list[Message]:
    """The judge's prompt for a conversation whose last turn is the response to grade.

    Raises:
        ValueError: the conversation does not end in an assistant's turn after a user's.
    """
    request, response = split_response(conversation)
    texts = {
        "request": material(request),
        "response": response,
        "max_words": str(_MAX_WORDS[mode]),
    }
    return [{"role": "user", "content": rubric_text(rubric).fill(texts)}]


def parse(completion: str, finish_reason: str | None = "stop") -> Verdict:
    """Read the score from what a judge wrote.

    A score line stands alone on its line (`Score: 4`, `**Score: 4/5**`) or ends the last
    one. What the judge quotes is not its score, and a total takes the place of its parts.
    Lines that repeat the same number agree; different numbers conflict.
    """
    found = read(completion, finish_reason, FORM)
    score, reason = found
    if score is None:
        return Verdict(None, reason)
    if not 0 <= score <= MAX_SCORE:
        return Verdict(None, UnscoredReason.OUT_OF_RANGE)
    return Verdict(score, None)


def through_score(completion: str) -> str:
    """What a judge wrote up to its score; all of it where there is none.

    What it went on to write is no part of the judgement, and may be cut in the middle.
    """
    return through_verdict(completion, FORM)
