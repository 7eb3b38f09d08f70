"""Sifts one prompt and its human-ranked replies. Pure.

Owns what is kept of them, and gives a reason for each message that is not. What
is kept stands best rank first, in the file's order among equal ranks, and holds
no text twice. A message that is left out may hold anything; only a malformed
rank is an error wherever it stands. Knows no format and no file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rewardloop.datasets import fields
from rewardloop.datasets.conversation import from_user, prompt_record
from rewardloop.datasets.fields import Raw
from rewardloop.records import PromptRecord, RankedText

MAX_CHARACTERS = 20_000
"""Of one message: some 5,000 tokens of English, more than a judge's prompt has room for."""

_MAX_RANK = 2**31 - 1
"""What the database's integers hold."""


class LeftOut(StrEnum):
    """Why a prompt or a reply is missing from what was read."""

    PROMPT_DELETED = "prompt_deleted"
    """The prompt is marked as deleted, so it goes with all its replies."""
    PROMPT_EMPTY = "prompt_empty"
    """The prompt has no text, or only blanks; so it goes with all its replies."""
    PROMPT_OTHER_LANGUAGE = "prompt_other_language"
    """The prompt is not in the wanted language, so it goes with all its replies."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt has more than `MAX_CHARACTERS`, so it goes with all its replies."""
    DELETED = "deleted"
    """One reply is marked as deleted."""
    EMPTY = "empty"
    """One reply has no text, or only blanks."""
    OTHER_LANGUAGE = "other_language"
    """One reply is not in the wanted language."""
    TOO_LONG = "too_long"
    """One reply has more than `MAX_CHARACTERS`."""
    UNRANKED = "unranked"
    """One reply has no rank, or null."""
    REPEATED_TEXT = "repeated_text"
    """One reply says word for word what a better-ranked one says."""
    FEWER_THAN_TWO = "fewer_than_two"
    """A prompt has no two replies left to put in order."""
    NO_ORDER = "no_order"
    """All that is left of a prompt's replies has one and the same rank."""
    EQUAL_RANKS = "equal_ranks"
    """Nothing is left out: a prompt was read whose humans tied some of its replies."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is kept of one prompt and its replies."""

    prompt: PromptRecord | None
    """None where it is left out; the reference is the best reply that is kept."""
    replies: tuple[RankedText, ...] = ()
    """Best first; perhaps none."""
    left_out: tuple[LeftOut, ...] = ()
    """A reason for each message that is not kept."""


def sift(prompt: Raw, replies: Sequence[Raw], source: str, language: str | None) -> Sifted:
    """Keeps what can be trained on. A message has `text`, and may have `deleted` and `lang`.

    `lang` is not looked at where `language` is None.

    Raises:
        ValueError: a message or a rank is malformed, or prompt or best reply are unstorable.
    """
    if why := _unwanted(prompt, language):
        return Sifted(None, left_out=(LeftOut(f"prompt_{why}"),))
    ranked, left_out = _ranked(replies, language)
    kept = _distinct(sorted(ranked, key=lambda reply: reply.rank))
    left_out += [LeftOut.REPEATED_TEXT] * (len(ranked) - len(kept))
    reference = kept[0].text if kept else None
    record = prompt_record(from_user(fields.text(prompt, "text")), reference, source)
    return Sifted(record, kept, tuple(left_out))


def _unwanted(message: Raw, language: str | None) -> LeftOut | None:
    if message.get("deleted") is True:
        return LeftOut.DELETED
    text = fields.text(message, "text")
    if not text.strip():
        return LeftOut.EMPTY
    if language is not None and fields.text(message, "lang") != language:
        return LeftOut.OTHER_LANGUAGE
    return LeftOut.TOO_LONG if len(text) > MAX_CHARACTERS else None


def _ranked(replies: Sequence[Raw], language: str | None) -> tuple[list[RankedText], list[LeftOut]]:
    ranked: list[RankedText] = []
    left_out: list[LeftOut] = []
    for number, reply in enumerate(replies, start=1):
        rank = _rank(reply, number)
        if why := _unwanted(reply, language):
            left_out.append(why)
        elif rank is None:
            left_out.append(LeftOut.UNRANKED)
        else:
            ranked.append(RankedText(fields.text(reply, "text"), rank))
    return ranked, left_out


def _rank(reply: Raw, number: int) -> int | None:
    """A boolean is an `int` to Python, but no rank."""
    rank = reply.get("rank")
    if rank is None:
        return None
    if isinstance(rank, int) and not isinstance(rank, bool) and 0 <= rank <= _MAX_RANK:
        return rank
    is_number = isinstance(rank, int | float) and not isinstance(rank, bool)
    shown = str(rank) if is_number else fields.kind_of(rank)
    raise ValueError(
        f'the "rank" of reply {number} is {shown}, not a whole number from 0 to {_MAX_RANK}'
    )


def _distinct(replies: Iterable[RankedText]) -> tuple[RankedText, ...]:
    """The first of each text."""
    first: dict[str, RankedText] = {}
    for reply in replies:
        first.setdefault(reply.text, reply)
    return tuple(first.values())
