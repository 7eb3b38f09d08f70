"""Whether a judge speaks for itself where a verdict ends its last line. Pure text.

"It is clear, so I give it a score of 4" is the judge's; "It asks for a score of 4" reports
somebody else's wish, and "With a source I would give it a 4" supposes. Knows neither scores
nor preferences: it looks at the words before them.
"""

# ruff: noqa: RUF001 (judges write these characters)

import re

from rewardloop.method.introductions import SPEECH

_SPEAKS_FOR_ITSELF = re.compile(
    r"""
    \b(?: I | we | my | overall | so | thus | hence | therefore | finally | final | total
        | gets? | earns? | deserves? | receives? | merits? | warrants? | rated | graded
        | (?:this|that|which)[ ]gives | result(?:s|ing)[ ]in | leading[ ]to )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What a clause holds in which the judge speaks of its own verdict."""

_WISH_OR_DENIAL = re.compile(
    r"""
    n['’]t\b
  | \b(?: not | never | cannot | without | instead | than | almost | nearly
        | would[ ]have | could[ ]have
        | itself | asks? | asked | asking | wants? | wanted | wish(?:es)? | tries | tried
        | trying | attempts? | demands? | begs? | hopes? | tells? | told | requests? | orders?
        | commands? | instructs? | refuses? )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What a clause holds that gives no verdict: somebody else wants it, or it is denied."""

_MAY = re.compile(r"\b(?:would|could|might|may)\b", re.IGNORECASE)
_IF = re.compile(r"\b(?:if|had|were|unless)\b", re.IGNORECASE)
_BEGINS_WITH_IF = re.compile(r"\W*(?:if|had|were|unless)\b", re.IGNORECASE)

_WHOLE_SENTENCES = ("given", "rated", "told")
"""Groups of a form's `sentence_end` that match a whole sentence, and no label."""
_BEFORE_A_WHOLE_SENTENCE = re.compile(
    r"""
    \W* (?: (?: so | thus | hence | therefore | overall | finally | and | but
              | in[ ](?:summary|conclusion|total) | all[ ]in[ ]all
              | based[ ]on[ ][^,\n]{1,80} ) \W+ )*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand before such a sentence: no condition, and nobody else's opinion."""

_LABEL_OF_A_VERDICT = re.compile(
    r"""
    (?: verdict | conclusion | grade | judge?ment | result | answer | evaluation | assessment
      | summary ) [ \t*_]*+ : [ \t*_]*+ $
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"[.!?。]")
_CLAUSE_END = re.compile(r"[.!?;,:—–。、]")
_QUOTE_MARKS = frozenset("\"'`“”„‘’«»")
_MAX_CHARACTERS = 200
"""Before the verdict that are looked at."""


def is_own_sentence(before: str, verdict: re.Match[str]) -> bool:
    """Whether the judge speaks for itself in the words before a verdict on the same line."""
    if _last_mark(verdict[0].rstrip(" \t\r.*_")) in _QUOTE_MARKS or before.count('"') % 2:
        return False
    groups = verdict.groupdict()
    if groups.get("result") is not None:
        return _last_mark(before.rstrip(" \t*_")) not in _QUOTE_MARKS
    if any(map(groups.get, _WHOLE_SENTENCES)):
        return _BEFORE_A_WHOLE_SENTENCE.fullmatch(_last_of(before, _SENTENCE_END)) is not None
    return _gives_a_verdict(before.rstrip(" \t*_#"))


def _gives_a_verdict(before: str) -> bool:
    in_brackets = before.endswith(("(", "["))
    before = before.rstrip("([ \t*_#")
    if before.endswith(":"):
        return bool(_LABEL_OF_A_VERDICT.search(before[-60:]))
    clause = _last_of(before[-_MAX_CHARACTERS:], _CLAUSE_END)
    if _last_mark(before) in _QUOTE_MARKS and not in_brackets and clause:
        return False
    if SPEECH.search(clause) or _WISH_OR_DENIAL.search(clause):
        return False
    if _is_supposed(clause, _last_of(before[-_MAX_CHARACTERS:], _SENTENCE_END)):
        return False
    return in_brackets or not clause.strip() or bool(_SPEAKS_FOR_ITSELF.search(clause))


def _is_supposed(clause: str, sentence: str) -> bool:
    may_be = _MAY.search(clause) and _IF.search(sentence)
    return bool(_BEGINS_WITH_IF.match(sentence) or may_be)


def _last_mark(text: str) -> str:
    return text[-1:]


def _last_of(text: str, ends: re.Pattern[str]) -> str:
    """The last sentence, or clause, of a text."""
    return ends.split(text)[-1]
