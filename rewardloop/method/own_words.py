"""Which part of a judge's text is the judge's own statement. Pure text.

A judge thinks aloud, quotes the response and repeats what it was shown. A score
that stands in such a place is not its verdict. Here those places are blanked:
every character of theirs but the newlines becomes a space, so that what is found
in the rest stands at the same index in the text as it was written. Knows neither
scores nor preferences. `docs/decisions/0014` gives the reasons.

Linear in the text: a judge may write anything.
"""

# ruff: noqa: RUF001 (judges and tokenizers write these characters)

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rewardloop.method.introductions import introduces_quotation

_NOT_NEWLINE = re.compile(r"[^\n]")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FULL_WIDTH |= dict.fromkeys((0xA0, 0x202F, 0x3000, 0x200B, 0xFEFF), 0x20)

_THOUGHT_NAMES = "think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis"
_THOUGHT_MARK = re.compile(
    rf"""
    (?P<opens>
        <(?:seed:)?+(?:{_THOUGHT_NAMES})>                                  # DeepSeek, Qwen, Seed
      | \[think\]                                                          # Magistral
      | ◁think▷                                                            # Kimi
      | <\|(?:begin_of_thought|start_thinking|begin_of_reasoning)\|>
      | <\|channel\|>(?:analysis|commentary)\b                             # gpt-oss
      | \A analysis (?=[\s\S]*?assistantfinal)        # the same, as text
    )
  | </(?:seed:)?+(?:{_THOUGHT_NAMES})>
  | \[/think\]
  | ◁/think▷
  | <\|(?:end_of_thought|end_thinking|end_of_reasoning)\|>
  | <\|channel\|>final(?:<\|message\|>)?+
  | assistantfinal
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Where thinking begins (group `opens`) and ends, as the models of the field spell it."""

_WRAPPING = re.compile(
    r"""
    <\|[^|<>\n]{1,40}\|> | </?s> | <(?:end_of_turn|eos|bos)>      # tokens that a server left in
  | </?(?:answer|final_answer|final|verdict|result|output)>       # tags for answers
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Marks around the judge's own words."""

_FENCE = re.compile(r"[ \t]*+(?P<mark>`{3,}+|~{3,}+)")
_IN_MARKS = re.compile(r"\W{0,5}[\"'“‘«„`].*[\"'”’»“`]\W{0,5}$")
_ITEM = re.compile(r"[ \t]*+(?:[-*+•]|\d{1,9}[.)])[ \t]")
_BLOCK_QUOTE = re.compile(r"[ \t]*+(?:(?:[-*+•]|\d{1,9}[.)])[ \t]++)?+(?:>|&gt;)")
_MATERIAL = "request|response|first_response|second_response"
_MATERIAL_OPENS = re.compile(rf"[ \t]*+<({_MATERIAL})>[ \t\r]*+$", re.IGNORECASE)
_QUOTATION_MARKS = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』"}
_MAX_QUOTED_LINES = 40
"""A quotation mark that nothing closes within so many lines is no quotation (5'10")."""

_OWN_VERDICT = re.compile(
    r"\b(?:I|my|verdict|grade|graded|judge?ment|conclusion|score|total|rating)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class OwnWords:
    """A judge's text with all that is not its own statement blanked."""

    unquoted: str
    """Thinking is blanked, quotations are not: where a final JSON object is looked for."""
    written: str
    """Nothing is blanked; full-width characters are narrow."""
    is_unfinished: bool
    """Thinking was begun and not ended; of it only the last line is left."""
    thinking_ends: int
    """The index behind the last mark that ends thinking; 0 where there is none."""

    @cached_property
    def text(self) -> str:
        """As long as what was written. A signed verdict is read without it."""
        return _without_quotations(self.unquoted)


def own_words(written: str) -> OwnWords:
    written = written.translate(_FULL_WIDTH)
    thought_out, is_unfinished, thinking_ends = _without_thinking(written)
    unquoted = _WRAPPING.sub(_blank_match, thought_out)
    return OwnWords(unquoted, written, is_unfinished, thinking_ends)


def _blank(text: str) -> str:
    return _NOT_NEWLINE.sub(" ", text)


def _blank_match(match: re.Match[str]) -> str:
    return _blank(match[0])


def _without_thinking(text: str) -> tuple[str, bool, int]:
    """The text, whether thinking is unfinished, and where finished thinking ends.

    An end without a beginning closes what the prompt opened: all before it is thinking.
    """
    thoughts: list[tuple[int, int]] = []
    opened_at: int | None = None
    for mark in _THOUGHT_MARK.finditer(text):
        if mark["opens"]:
            opened_at = mark.start() if opened_at is None else opened_at
        elif opened_at is None:
            thoughts = [(0, mark.end())]
        else:
            thoughts.append((opened_at, mark.end()))
            opened_at = None
    end = thoughts[-1][1] if thoughts else 0
    if opened_at is None:
        return _blanked(text, thoughts), False, end
    last_line = max(text.rstrip().rfind("\n") + 1, opened_at)
    marks = [mark.span() for mark in _THOUGHT_MARK.finditer(text, last_line)]
    return _blanked(text, [*thoughts, (opened_at, last_line), *marks]), True, end


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    end = 0
    for start, stop in spans:
        parts += [text[end:start], _blank(text[start:stop])]
        end = stop
    return "".join([*parts, text[end:]])


def _without_quotations(text: str) -> str:
    lines = text.split("\n")
    quoted = _quoted_blocks(lines)
    quoted |= _quoted_after_introductions(lines, quoted)
    return "\n".join(" " * len(x) if i in quoted else x for i, x in enumerate(lines))


def _quoted_blocks(lines: list[str]) -> set[int]:
    """Lines in code fences, block quotes, echoes of the material and long quotations."""
    quoted: set[int] = set()
    closings = _closings(lines)
    number = 0
    while number < len(lines):
        end = _end_of_block(lines, number) or _end_of_quotation(lines[number], number, closings)
        opens_echo = _MATERIAL_OPENS.match(lines[number]) is not None
        quoted.update(range(number + opens_echo, end))  # the tag itself may begin an example
        number = max(end, number + 1)
    return quoted


def _end_of_block(lines: list[str], start: int) -> int:
    """The line after the quoted block that begins at `start`; 0 where none does."""
    line = lines[start]
    if fence := _FENCE.match(line):
        return _end_of_fence(lines, start, fence["mark"])
    if opens := _MATERIAL_OPENS.match(line):
        closes = f"</{opens[1].lower()}>"
        after = (n + 1 for n in range(start + 1, len(lines)) if closes in lines[n].lower())
        return next(after, len(lines))
    return start + 1 if _BLOCK_QUOTE.match(line) else 0


def _end_of_fence(lines: list[str], start: int, mark: str) -> int:
    for number in range(start + 1, len(lines)):
        closes = _FENCE.match(lines[number])
        if closes and closes["mark"].startswith(mark):
            return number + 1
    return len(lines)


def _closings(lines: list[str]) -> dict[str, list[int]]:
    """The lines that hold each closing quotation mark."""
    marks = set(_QUOTATION_MARKS.values())
    return {mark: [n for n, line in enumerate(lines) if mark in line] for mark in marks}


def _end_of_quotation(line: str, number: int, closings: dict[str, list[int]]) -> int:
    """The line after the one that closes a quotation mark left open here; 0 where none is."""
    for opens, closes in _QUOTATION_MARKS.items():
        stays_open = (
            line.count(opens) % 2 == 1
            if opens == closes
            else line.rfind(opens) > line.rfind(closes)
        )
        if stays_open:
            at = bisect_right(closings[closes], number)
            if at < len(closings[closes]) and closings[closes][at] - number <= _MAX_QUOTED_LINES:
                return closings[closes][at] + 1
    return 0


def _quoted_after_introductions(lines: list[str], quoted: set[int]) -> set[int]:
    """The paragraph, or the indented block, that follows "The response says:"."""
    found: set[int] = set()
    written = [n for n in range(len(lines)) if n not in quoted and lines[n].strip()]
    before: int | None = None
    for number in written:
        if before is None or any(n in quoted for n in range(before + 1, number)):
            pass  # what was introduced is the quotation between the two lines
        elif _is_introduced(lines, before, number, before in found):
            found.add(number)
        before = number
    return found


def _is_introduced(lines: list[str], before: int, number: int, goes_on: bool) -> bool:
    indented = lines[number].startswith(("    ", "\t"))
    if goes_on:
        if lines[before].startswith(("    ", "\t")):
            return indented
        after_list = _ITEM.match(lines[before]) and not _ITEM.match(lines[number])
        return number == before + 1 and not after_list and not _IN_MARKS.match(lines[before])
    line = lines[before].rstrip()
    if indented and line.endswith(":") and not _OWN_VERDICT.search(line[-80:]):
        return True
    return introduces_quotation(line)


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Each line with the index at which it starts."""
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1
