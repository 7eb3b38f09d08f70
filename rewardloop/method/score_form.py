"""How judges spell a score: the patterns by which one is found. Pure text.

Owns the grammar of a score's line (`Score: 4`, `**Total score** (0-5) - 4/5 points`), of a
last line, and of a sentence that gives a score. Invariants: every pattern takes time that is
linear in what a judge wrote, so repetitions are possessive (`*+`, `++`) or bounded; a number
of another scale than 0 to 5 is found as one that is out of range. Knows nothing of where in
a judge's text a score counts (see `verdict`). `docs/decisions/0014` gives the reasons.

The patterns are verbose: blanks in them mean nothing, and a blank of the text is `[ ]`.
"""

# ruff: noqa: RUF001 (judges and tokenizers write these characters)

import re
from math import inf
from typing import Any

from rewardloop.method.nonce import MARK
from rewardloop.method.verdict_form import PICTURES, REPORTS, Form, signed_by

MAX_SCORE = 5

_NUMBER = r"[0-9]++(?:\.[0-9]++)?+(?!\d)"  # ASCII: what is no digit of ours is no score

# The parts of a score's line, from left to right.

_LABEL = r"""
(?: (?:my|the|a|grand|combined|awarded) [ \t]++ ){0,3}
(?:
    (?P<total>  # a total takes the place of its parts: "Final score", "Total number of points"
        (?: final | total | overall
          | (?:revised|corrected|adjusted|updated) (?=[ ](?:score|total)) )
        (?: [ \t]++ (?:final | total | overall | number[ ]of) ){0,2}+
        (?: [ \t]++ (?:score|rating|grade|marks?|points?|verdict) )?+
    )
  | score | rating | grade | verdict
)
(?: [ \t]*+ (?:  # the scale, told with the label
    \( [\d \t/–-]{1,12} \)                    # "(0-5)", "(1 / 5)"
  | \( (?:out[ ]of | of | max\.?) [ ]?5 \)    # "(out of 5)", "(max. 5)"
  | out[ ]of[ ]5
) )?+
"""
"""What the judge calls its number."""

_JOINT = r"""
[ \t*_`"'”]*+
(?: [:=|]                  # "Score: 4", "| Score | 4 |"
  | [-–—] (?=[ \t])        # "Score - 4", and not "Score -4"
  | (?=\r?\n)              # the number stands on the next line
  | (?(total)is\b|(?!))    # "The total score is 4"; without "total" this is prose
)
"""
"""What joins a label to its number."""

_BEFORE_NUMBER = r"""
(?: [ \t\r*_`"'“\[({$]
  | (?P<below>\n)             # the number stands under its label
  | <total>
  | < (?=[^<>\n]{1,40}>)      # the form's own "<score>", filled in: "Score: <4>"
)*+
(?: \\boxed\{ )?+             # TeX
(?: (?: \d++ [ \t]*+ \+ [ \t]*+ )++ \d++ [ \t]*+ = [ \t]*+ )?+    # the sum: "1 + 1 + 2 = 4"
"""
"""What may stand between the joint and the number."""

_POINTS = rf"{_JOINT} {_BEFORE_NUMBER} (?P<score> [-−]?{_NUMBER} )"

_UNIT = r"(?: points?\b | pts\b | stars?\b )?+"

_SCALE = rf"""
(?: </total> )?+
[>\])}}"'”`*_$ \t]*+ {_UNIT}
(?: [ \t]*+ (?: / | out[ \t]of | of ) [ \t]*+ (?: a[ \t]maximum[ \t]of[ \t] )?+
    (?P<scale> {_NUMBER} ) )?+    # "4/5", "4 out of a maximum of 5"; another scale is no score
[>\])}}"'”`*_$ \t{PICTURES}]*+ {_UNIT}
"""
"""What may follow the number: its unit, and the scale that it is of."""

_LINE_END = rf"[|. \t\r*_!`\"'”)\]>{PICTURES}]*+ $"

_CLOSING = r"(?: [>\])}*_`$ \t] | </\w{1,9}> ){0,8}+"
"""Behind a number that names its nonce. No quotation mark: what that opens is somebody else's."""

_IN_BRACKETS = r"""
    \( [^()\n\d]{0,300} \)                                        # "(good, but short)"
  | \( (?:out[ ]of[ ] | of[ ] | /[ ]?) 5 (?:[ ]points)? \)        # "(out of 5 points)"
"""

_AFTER_DASH = r"[-–—] [ \t]++ [^\n\d]{1,300}"

_REASON = rf"""
(?(below)(?!))    # a number that begins its own line may be the first of a list
(?: [-–—.,;:] [*_ \t]++                          # "Score: 4. It is clear."
  | (?<!\w) (?=(?:because|since)[ ]\S) )         # "Score: 4 because it is clear"
(?! [^\n]{{0,300}} \b(?:{REPORTS})\b )           # no "Score: 5, says the response"
[^\n\d]{{1,300}}                                 # no digit: it would be a second score
"""


def _to_line_end(explanation: str) -> str:
    """The rest of the line after a number, with an explanation of this form or none."""
    return rf"{_SCALE} (?: [ \t]*+ (?: {_IN_BRACKETS} | {explanation} ) )?+ {_LINE_END}"


# Where a score may stand.

_UNDER_HEADING = r"""
(?: (?P<headed> overall|total|final )\b [^\n\d:=]{0,40}+ :?[ \t\r*_]*+ \n \s*+ [*_#• \t-]*+ )?
"""
"""A heading over the line, which is then no part of the sum."""

_LINE = re.compile(
    rf"""
    ^(?! [ ]{{4}} | \t)    # indented text is quoted
    [ *_#•{PICTURES}-]*+ {_UNDER_HEADING} {_LABEL} {_POINTS} {_to_line_end(_REASON)}
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)

_WHOLE_LAST_LINE = re.compile(
    rf"""
    [\s*_#•-]*+ <score>\s*+ (?P<tagged> -?{_NUMBER} ) \s*+ (?: /\s*+5\s*+ )?+ </score>\s*+
  | (?:
        [\s*_#•{PICTURES}-]*+
        (?: \[\[ (?P<listed> -?{_NUMBER} ) \]\]     # "[[4]]"
          | < (?P<echoed> {_NUMBER} ) > )           # "<4>", as the form has it
      | [\s*_#•|"'“`(\[${PICTURES}-]*+
        (?: {_LABEL} {_POINTS}
          | (?<![-−]) (?P<alone> {_NUMBER} )        # "4/5", "4 out of 5"
            (?= [ \t*_]*+ (?: / | out[ ]of | points?[ ]out[ ]of ) [ \t]*+ \d )
          | \\boxed\{{ (?P<boxed> -?{_NUMBER} ) \}} )
    ) {_to_line_end(_AFTER_DASH)}
    """,
    re.IGNORECASE | re.VERBOSE,
)

_FILLERS = r"""
(?: [ ] (?: this | that | the | it | its | response | answer | a | an | overall | final | total
          | full | solid | strong | only | just | as | at | out | with )\b ){0,6}
"""
"""What may stand between "I give" and the number; any other word may turn its sense."""

_SENTENCE = rf"""
(?: \b(?:I|we) (?: [ ]would | ['’]d | [ ]will | ['’]ll )? (?: [ ]therefore | [ ]thus )?
    [ ] (?: give | rate | assign | award | grade | score )
  | \b(?: (?:this|the)[ ](?:response|answer) | it | this )
    [ ] (?: gets | earns | deserves | merits | receives )
)
{_FILLERS}
(?: [ ](?:score|rating|grade)[ ]of[ ] [*_]{{0,3}} (?P<given> {_NUMBER} )    # "a score of 4"
  | [ ][*_]{{0,3}} (?P<rated> {_NUMBER} )                                   # "it 4 out of 5"
    (?= [*_]{{0,3}} [ ]? (?: / | out[ ]of | points[ ]out[ ]of ) )
)
| \b(?:the|my)[ ]score[ ]is[ ] [*_]{{0,3}} (?P<told> {_NUMBER} )
"""
"""How a judge gives its score that has no line for it."""

_SENTENCE_END = re.compile(
    rf"""
    (?<![\w/])
    (?: {_LABEL} {_POINTS}
      | \[RESULT\] [\s:*_(<\[]*+ (?P<result> -?{_NUMBER} )    # as Prometheus writes
      | {_SENTENCE}
    ) {_to_line_end(_AFTER_DASH)}
    """,
    re.IGNORECASE | re.VERBOSE,
)

_SIGNED = re.compile(
    rf"""
    (?: (?P<total>
            (?: total|final|overall | (?:revised|corrected|adjusted|updated)(?=[ ](?:total|score)) )
            (?: [ ](?: score | rating | grade | verdict | points? | number[ ]of[ ]points ) )?+ )
        (?: [^\w\n{MARK}] | _ ){{0,4}}+ )?+
    {signed_by("score")}
    (?: (?: [0-9]++ [ ]*+ \+ [ ]*+ )++ [0-9]++ [ ]*+ = [ *_]*+ )?+    # the sum: "1 + 1 + 2 = 4"
    (?P<score> [-−]?{_NUMBER} )
    (?! [^\W_]    # "4th"
      | [> \t*_]*+ (?: [+=] | (?: [-–—,] | to\b | or\b | and\b ) [ \t]*+ \d ) )    # "0 - 5"
    {_CLOSING}
    (?: {_UNIT} [*_ \t]{{0,4}}+ \(?+ (?: / | out[ ]of | of ) [ \t]*+ (?: a[ ]maximum[ ]of[ ] )?+
        (?P<scale> {_NUMBER} ) )?+
    {_CLOSING}
    (?(below) {_UNIT} {_LINE_END} )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)

_MAY_GO_ON = re.compile(
    r"""
    \d (?: \.                                          # "Score: 4." may become 4.5
         | [^\n\d]*+ (?<=[^\W\d_]|[,;:]) (?<!points)   # a reason that may lack its end
    ) \Z
    """,
    re.VERBOSE,
)

# What a match means.

_GROUPS_OF_POINTS = (
    *("score", "tagged", "alone", "listed", "echoed", "boxed", "result"),
    *("given", "rated", "told"),
)
_NAMES_POINTS = re.compile("score|rating|grade|mark|point", re.IGNORECASE)
_KEYS = frozenset(
    {
        *("score", "total_score", "final_score", "overall_score", "total", "overall", "grade"),
        *("rating", "overall_rating", "final_rating", "points", "total_points"),
    }
)


def _points(match: re.Match[str]) -> float:
    """The points; infinite where they are of another scale, so that they are out of range."""
    groups = match.groupdict()
    score = next(groups[name] for name in _GROUPS_OF_POINTS if groups.get(name) is not None)
    scale = groups["scale"]
    return float(score.replace("−", "-")) if scale is None or float(scale) == MAX_SCORE else inf


def _is_total(match: re.Match[str]) -> bool:
    return any(match.groupdict().get(name) for name in ("total", "headed"))


def _is_bare(match: re.Match[str]) -> bool:
    """A "Total:" that does not say of what."""
    total = match.groupdict().get("total") or "score"
    return _NAMES_POINTS.search(total) is None


def _json_points(value: Any) -> float | None:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*(?:/\s*5)?\s*", value)
        return float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(value) if abs(value) <= MAX_SCORE else inf


FORM: Form[float] = Form(
    line=_LINE,
    whole_last_line=_WHOLE_LAST_LINE,
    signed=_SIGNED,
    sentence_end=_SENTENCE_END,
    keys=_KEYS,
    value=_points,
    json_value=_json_points,
    is_total=_is_total,
    is_bare=_is_bare,
    may_go_on=_MAY_GO_ON,
)
"""How a score is spelled."""
