"""What a judge's text says in the end: its verdict, or why it has none. Pure text.

Shared by the rubric (a score) and the comparison (a preference), which give the
form that they ask for. Invariants: where the call had a nonce, only a verdict that
names it counts, wherever it stands (`nonce`); where it had none, only the judge's own
words count (`own_words`); the first verdict is the one, and what the judge invents
after it (another request, another response) is neither read nor trained on; a text that
was cut has a verdict only where its last line is a whole one. `docs/decisions/0014` and
`0025` give the reasons.
"""

# ruff: noqa: RUF001 (judges write these characters)

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Generic

from rewardloop.method.final_object import final_object
from rewardloop.method.nonce import marked
from rewardloop.method.own_sentence import is_own_sentence
from rewardloop.method.own_words import OwnWords, lines_of, own_words
from rewardloop.method.verdict_form import Form, Found, T
from rewardloop.records import UnscoredReason

_OTHER_EXAMPLE = re.compile(
    r"""
    [ \t]*+
    (?: <(?:request|response|first_response|second_response)>
      | [*_#\[( \t-]*+
        (?: user | human | assistant | system | instructions? | input
          | (?: new[ ] | next[ ] | another[ ] )?+
            (?: request | response | question | prompt | example | task | conversation ) )
        (?: [ \t]\d{1,3} | [ \t][A-Z] )?+ [*_\])]*+ [ \t]*+
        (?: [:：] | [ \t\r]*+ $ )                # "Response 2:", "**User**"
      | You[ ](?: grade[ ]an[ ]assistant's[ ]response | compare[ ]two[ ]responses ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How a line begins with which a judge starts on another example."""

_CUT = frozenset({"length", "max_tokens", "model_length", "content_filter", "abort", "error"})
"""Finish reasons of the field's servers after which a text may lack its end."""


@dataclass(frozen=True, slots=True)
class _Judgement(Generic[T]):
    """What is read of a text: the verdicts, and where the judge's words on this response end."""

    verdicts: list[Found[T]]
    end: int
    goes_on: bool
    """The judge went on to another example."""
    in_thinking: bool = False
    """There are signed verdicts in thinking alone."""


def read(
    written: str, finish_reason: str | None, form: Form[T], nonce: str | None
) -> tuple[T | None, UnscoredReason | None]:
    """The verdict, or why there is none: one of the two is None. `nonce` is the call's; with
    None a verdict needs none."""
    own, judgement = _own_judgement(written, form, nonce)
    is_cut = str(finish_reason or "").lower() in _CUT
    lacks_its_end = _unsigned_lacks_its_end if nonce is None else _signed_lacks_its_end
    if lacks_its_end(own, judgement, form, is_cut):
        return None, UnscoredReason.TRUNCATED
    if not judgement.verdicts:
        unsigned = nonce is not None and _judgement(own, form).verdicts
        return None, UnscoredReason.UNSIGNED if unsigned else UnscoredReason.NO_SCORE
    values = {found.value for found in judgement.verdicts}
    return (values.pop(), None) if len(values) == 1 else (None, UnscoredReason.CONFLICTING)


def through_verdict(written: str, form: Form[Any], nonce: str | None) -> str:
    """What was written up to its first verdict; all of it where there is none."""
    _, judgement = _own_judgement(written, form, nonce)
    if not judgement.verdicts:
        return written
    return written[: min(found.end for found in judgement.verdicts)].rstrip()


def _own_judgement(
    written: str, form: Form[T], nonce: str | None
) -> tuple[OwnWords, _Judgement[T]]:
    if nonce is None:
        own = own_words(written)
        return own, _judgement(own, form)
    own = own_words(marked(written, nonce))
    return own, _signed_judgement(own, form)


def _signed_judgement(own: OwnWords, form: Form[T]) -> _Judgement[T]:
    """The verdicts that name the nonce: those behind all thinking, else those outside of it,
    else drafts in it. For a mark of thinking may be quoted, and must not hide a verdict."""
    behind = " " * own.thinking_ends + own.unquoted[own.thinking_ends :]
    for text, in_thinking in ((behind, False), (own.unquoted, False), (own.written, True)):
        found = [_found(match, form) for match in form.signed.finditer(text)]
        if found:
            return _signed(found, text, in_thinking=in_thinking)
    return _Judgement([], len(own.written), goes_on=False)


def _signed(found: list[Found[T]], text: str, *, in_thinking: bool) -> _Judgement[T]:
    """A line like `user:` may begin another example, or be quoted: behind it only a total counts,
    where there was none before."""
    end = _start_of_other_example(text, found[0].end)
    before = [verdict for verdict in found if verdict.end <= end]
    if not any(verdict.is_total for verdict in before):
        before += [verdict for verdict in found if verdict.end > end and verdict.is_total]
    return _Judgement(_without_parts(before), end, end < len(text), in_thinking)


def _start_of_other_example(text: str, after: int) -> int:
    starts = (at for at, line in lines_of(text) if at >= after and _OTHER_EXAMPLE.match(line))
    return next(starts, len(text))


def _signed_lacks_its_end(
    own: OwnWords, judgement: _Judgement[Any], form: Form[Any], is_cut: bool
) -> bool:
    """A text that was cut has the verdict of any whole line: no quotation can be one."""
    if not is_cut:
        return False
    if not judgement.verdicts or judgement.in_thinking:
        return True
    rest = own.written[max(found.end for found in judgement.verdicts) :]
    if own.is_unfinished:  # a verdict on the last line is a draft
        return "\n" not in rest.rstrip()
    return "\n" not in rest and not _ends_in_verdict(own, judgement, form)


def _unsigned_lacks_its_end(
    own: OwnWords, judgement: _Judgement[Any], form: Form[Any], is_cut: bool
) -> bool:
    if own.is_unfinished and is_cut:
        return True
    return (is_cut or own.is_unfinished) and not _ends_in_verdict(own, judgement, form)


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
        if _OTHER_EXAMPLE.match(line):
            before = alone[: bisect_right(alone, start, key=lambda found: found.end)]
            if not before:
                before = _in_last_line(*last, form)
            if not before and not tried_object:
                before, tried_object = final_object(own, start, form), True
            if before:
                return _Judgement(_without_parts(before), start, goes_on=True)
        if line.strip():
            last = (start, line)
    found = alone
    if not (alone and alone[-1].end > last[0]):
        end = len(own.text)
        found = alone + (_in_last_line(*last, form) or final_object(own, end, form))
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
        if match is None or not is_own_sentence(line[: match.start()], match):
            return []
    return [_found(match, form, start)]
