"""When two samples are one answer, and when a sample is no answer at all. Pure.

A pair of two spellings of one text teaches nothing, and takes the place of a pair
that would. Two texts are one answer where they differ in nothing that a reader
sees as text: in canonical Unicode form (NFC; superscripts, full-width letters and
other compatibility forms stay different, since they can change the meaning), in
line ends, in invisible format characters and in outer white space. Letter case,
punctuation and inner white space are differences.

A text is no answer where it holds no letter, no digit and no symbol (Unicode
categories L, N and S without Sk): "", " ", "...", "?!" and "```" are none; "4",
"π", "+", "$" and an emoji are.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from rewardloop.records import ScoredResponse, mean_of_parsed, mean_score

_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")
_JOINERS = "\u200c\u200d"
"""Within a text they change words (Persian) and emoji, so only outer ones are left out."""
_PRESENTATION = "\ufe0e\ufe0f"
"""Choose between two pictures of one character."""
_TAGS = range(0xE0020, 0xE0080)
"""Format characters that spell the flags of regions."""
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Show nothing, though Unicode calls them letters and symbols."""
_STANDS_FOR_NOTHING = "\ufffd\u2400" + _BLANK_LETTERS
_OUTER = re.compile(rf"^[\s{_JOINERS}{_BLANK_LETTERS}]+|[\s{_JOINERS}{_BLANK_LETTERS}]+\Z")


def same_text_key(text: str) -> str:
    """Equal for two texts exactly where they are one answer."""
    lines = _LINE_END.sub("\n", text)
    visible = "".join(c for c in lines if not _is_invisible(c))
    return unicodedata.normalize("NFC", _outer_stripped(visible))


def has_text(text: str) -> bool:
    """Whether a text holds a letter, a digit or a symbol."""
    return any(
        (category := unicodedata.category(c))[0] in "LNS" and category != "Sk"
        for c in text
        if c not in _STANDS_FOR_NOTHING
    )


def pooled(responses: Iterable[ScoredResponse]) -> list[ScoredResponse]:
    """One response for each answer, by response id.

    It is the sample with the lowest id, of those that were not cut where there are such. It
    carries the judgements of all samples of its text: as score the mean over all of their
    scores, and as the score of each judge index the mean at that index. Every judgement of a
    text is evidence on that text, and the lucky draw of one sample is not.
    """
    by_text: dict[str, list[ScoredResponse]] = {}
    for response in sorted(responses, key=lambda r: r.response_id):
        by_text.setdefault(same_text_key(response.text), []).append(response)
    return sorted(map(_one_of, by_text.values()), key=lambda r: r.response_id)


def _one_of(samples: Sequence[ScoredResponse]) -> ScoredResponse:
    if len(samples) == 1:
        return samples[0]
    known = [s.scores or (s.score,) for s in samples]
    return replace(
        min(samples, key=lambda s: (s.is_cut, s.score is None, s.response_id)),
        score=mean_score(score for scores in known for score in scores),
        scores=tuple(mean_of_parsed(at_index) for at_index in zip_longest(*known)),
    )


def _is_invisible(character: str) -> bool:
    if character in _JOINERS or ord(character) in _TAGS:
        return False
    return unicodedata.category(character) == "Cf" or character in _PRESENTATION


def _outer_stripped(text: str) -> str:
    """Python's white space includes the non-breaking blanks."""
    return _OUTER.sub("", text)
