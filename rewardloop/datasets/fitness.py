"""What every format must hold to before it is trained on.

Owns the limits of a prompt and of an answer: user and assistant take turns, the
user has the last word, nothing is blank, too long or unstorable. Sources are cut
to what can be stored. Knows no format.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from rewardloop.datasets.form import Candidate, Conversation, Ranked, Ungraded
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message
from rewardloop.texts import check_storable, is_blank

MAX_CHARACTERS = 20_000
"""Of one message: some 5,000 tokens of English, more than a judge's prompt has room for."""
_MEDIUM = re.compile(r"^\s*<(?:image|video|audio)>|<(?:image|video|audio)>\s*$")
"""Where multimodal sets put what is shown; in the middle of a text it may be HTML."""
MAX_TURNS = 100
MAX_SOURCE = 500
"""Characters of a source that the API takes."""


def fitted(row: Row, conversation: Conversation) -> Conversation:
    """The conversation with its fit candidates; the others are noted in the row.

    Raises:
        RowLeftOut: the prompt itself is unfit.
    """
    _check_prompt(conversation.messages)
    source = conversation.source
    _check_storable(source, "the id")
    if len(source) > MAX_SOURCE:
        row.leave_out(Reason.CUT_SOURCE)
        source = source[:MAX_SOURCE]
    candidates = _fit_candidates(row, conversation.candidates)
    return replace(conversation, source=source, candidates=tuple(candidates))


def _check_prompt(messages: Sequence[Message]) -> None:
    if not messages:
        raise RowLeftOut(Reason.PROMPT_EMPTY, "there are no turns")
    if is_blank(messages[-1]["content"]):
        raise RowLeftOut(Reason.PROMPT_EMPTY, "the prompt has no text")
    if len(messages) > MAX_TURNS:
        raise RowLeftOut(Reason.TOO_MANY_TURNS, f"{len(messages)} turns are more than {MAX_TURNS}")
    _check_roles([message["role"] for message in messages])
    for number, message in enumerate(messages, start=1):
        _check_storable(message["content"], f"turn {number}")
        if _MEDIUM.search(message["content"]):
            raise RowLeftOut(Reason.MEDIA, f"turn {number} has a picture's place in it")
        if is_blank(message["content"]):
            raise RowLeftOut(Reason.EMPTY_TURN, f"turn {number} has no text")
        if len(message["content"]) > MAX_CHARACTERS:
            raise RowLeftOut(
                Reason.PROMPT_TOO_LONG,
                f"turn {number} has more than {MAX_CHARACTERS:,} characters",
            )


def _check_roles(roles: Sequence[str]) -> None:
    """An optional system turn, then user and assistant by turns; the user ends."""
    turns = roles[1:] if roles[0] == "system" else roles
    for number, role in enumerate(turns):
        if role != ("user", "assistant")[number % 2]:
            raise RowLeftOut(
                Reason.TURNS_OUT_OF_ORDER,
                f"user and assistant do not take turns ({', '.join(roles[:8])})",
            )
    if len(turns) % 2 == 0:
        raise RowLeftOut(Reason.TURNS_OUT_OF_ORDER, "the prompt does not end in a turn of the user")


def _check_storable(text: str, what: str) -> None:
    try:
        check_storable(text)
    except ValueError as error:
        raise RowLeftOut(Reason.UNSTORABLE, f"{what}: {error}") from None


def _fit_candidates(row: Row, candidates: Sequence[Candidate]) -> list[Candidate]:
    fit: list[Candidate] = []
    lost: list[int] = []
    for candidate in candidates:
        why = _unfit(candidate)
        if why is None:
            fit.append(candidate)
            continue
        row.leave_out(why)
        if isinstance(candidate.grade, Ranked):
            lost.append(candidate.grade.rank)
    return _without_lone_loser(fit, min(lost, default=None))


def _unfit(candidate: Candidate) -> Reason | None:
    if is_blank(candidate.text):
        return Reason.EMPTY
    if len(candidate.text) > MAX_CHARACTERS:
        return Reason.TOO_LONG
    try:
        check_storable(candidate.text)
    except ValueError:
        return Reason.UNSTORABLE
    return None


def _without_lone_loser(fit: list[Candidate], best_lost: int | None) -> list[Candidate]:
    """What lost to an answer that is not read, and beats none that is left, is no best: a
    rejected answer does not get good because the chosen one is blank."""
    ranks = {c.grade.rank for c in fit if isinstance(c.grade, Ranked)}
    if best_lost is None or len(ranks) != 1 or best_lost >= min(ranks):
        return fit
    return [Candidate(c.text, Ungraded()) if isinstance(c.grade, Ranked) else c for c in fit]
