"""Whether a judge's line introduces somebody else's words. Pure text.

"The response ends with the line:" does; "My verdict:" and "I would say:" do not. Owns the
verbs of saying, and the other ways in which a line announces a text. Knows no verdict.

The patterns are verbose: blanks in them mean nothing, and a blank of the text is `[ ]`.
"""

# ruff: noqa: RUF001 (judges write these characters)

import re

_SAYS = r"""
(?: says? | said | saying | states? | stated | claims? | claimed | writes? | wrote | reads?
  | contains? | includes? | quotes? | adds? | asserts? | declares? | boasts? | insists?
  | demands? | prints? | tells[ ]us
  | (?: ends? | ended | ending | closes? | concludes? | finishe?s? | begins? | starts? | opens? )
    [ ] (?: with | in | by | on | like )
  | gives?[ ]itself | awards?[ ]itself | scores[ ]itself | rates[ ]itself | asks[ ]for )
"""
_NOT_I = r"(?<!\bI[ ]) (?<!\bI'd[ ]) (?<!\bI’d[ ]) (?<!\bI[ ]would[ ]) (?<!\bwe[ ])"

SPEECH = re.compile(rf"\b {_NOT_I} {_SAYS} \b", re.IGNORECASE | re.VERBOSE)
"""A verb by which a judge reports what somebody else wrote."""

_OF_A_LINE = """
the | a | this | that | these | its | own | last | final | first | following | line | lines
| text | words? | phrase | sentence | statement | score | verdict | grade | claim | quote
| itself | himself | at | in | by | as | with | end | then | also | only | just | about | of
| follows | instruction | injection | string | snippet | message | output | json | object
| code | block
"""
"""What may stand between the verb and the end of its line, where a text is announced."""

_SAYS_AT_END = re.compile(
    rf"""
    \b {_NOT_I} {_SAYS} (?P<more> (?: [ ](?:{_OF_A_LINE})\b ){{0,8}} )
    [ \t]*+ (?P<colon> [:：]? ) [ \t\r*_]*+ $
    """,
    re.IGNORECASE | re.VERBOSE,
)

_OF_THE_RESPONSE = r"(?: [ ](?:of|in|from|at)[ ](?:the|its|this|that)[ ]\w{1,20} ){0,3}"

_NAMES_A_TEXT = re.compile(
    rf"""
    # "its last line of the response is:"
    [\w'’][ ](?: line | sentence | text | words? | phrase | statement | output | instruction
               | injection | string | quote | quotation | snippet )
    {_OF_THE_RESPONSE} (?: [ ](?:itself|again) )? (?: [ ](?:is|was|are|were) )? :$
    # "the last line of the response is"
  | [\w'’][ ](?: line | sentence | text | words? )
    {_OF_THE_RESPONSE} [ ](?:is|was|are|were)$
    # "The whole response is nothing but this:"
  | (?: response | reply | text )[ ](?:is|was)
    (?: [ ](?: nothing | but | only | just | simply | exactly | this ) ){{0,3}} :$
    # "Here is the full response again:", but a "JSON response" is the judge's
  | (?: here[ ]is | here's | this[ ]is | repeats? | repeating | quoting )[ ]the[ ]
    (?: (?!json)\w{{1,20}}[ ] )? (?:response|reply)
    (?: [ ](?: itself | again | verbatim | in[ ]full ) ){{0,2}} :$
    # "It ends, as follows:"; the same in German, French, Spanish and Portuguese
  | [ ](?: with | by | as[ ]follows | like[ ]this | mit | folgt | par | con | com )[ ]?:$
    # verbs of saying in other languages
  | \b(?: sagt | schreibt | lautet | endet | dit | écrit | termine | finit | dice | escribe
        | termina | diz | escreve | scrive | говорит | пишет | гласит | заканчивается )\b
    [^:]{{0,40}} :$
  | [说写是言書終] [^:]{{0,9}} :$
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How a line ends that announces a text, with no verb of saying."""

_ANNOUNCES_A_VERDICT = re.compile(
    r"""
    \b(?:I|we)\b | \b(?:my|our|final)[ ]output
  | ^\W* (?:\w+\W+){0,3}
    (?: verdict | grade | judge?ment | conclusion | score | total | rating | evaluation
      | assessment | bewertung | note | urteil | évaluation | evaluación | nota | оценка
      | valutazione )\b
  | 我|评分|得分|分数|结论|評価
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CLAUSE_END = re.compile(r"[.!?;。] ?")
_MAX_CHARACTERS = 200
"""Of a line's end that is looked at."""


def introduces_quotation(line: str) -> bool:
    """Whether the next line is somebody else's: "The response ends with the line:"."""
    match = _SAYS_AT_END.search(line[-_MAX_CHARACTERS:])
    if match is not None:
        before_verb = match.string[: match.start()]
        is_about_saying = match["more"] or before_verb.endswith(("to ", "what it "))
        return bool(match["colon"]) or not is_about_saying
    clause = _CLAUSE_END.split(line.rstrip(" \t\r*_")[-_MAX_CHARACTERS:])[-1]
    return bool(_NAMES_A_TEXT.search(clause)) and not _ANNOUNCES_A_VERDICT.search(clause)
