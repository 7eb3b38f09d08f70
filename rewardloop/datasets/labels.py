"""Reads labels, numbers and ranks of any type.

Owns which values mean good and which bad. What is not known is never guessed:
it raises. Knows no format.
"""

import math
import re

from rewardloop.datasets.fields import kind_of, names
from rewardloop.datasets.reasons import Reason, RowLeftOut

_GOOD = names(
    """
    1 1.0 +1 true t yes y good desirable desired positive pos up thumbs_up thumbsup thumb_up
    like liked chosen accept accepted approve approved preferred helpful correct upvote upvoted
    pass 👍
    """
)
_BAD = names(
    """
    0 0.0 -1 -1.0 false f no n bad undesirable undesired negative neg down thumbs_down
    thumbsdown thumb_down dislike disliked rejected reject unpreferred unhelpful incorrect wrong
    downvote downvoted fail failed 👎
    """
)
_AGAINST = names(
    """
    bad undesirable undesired thumbs_down thumbsdown thumb_down dislike disliked rejected reject
    unpreferred unhelpful incorrect wrong downvote downvoted fail failed unsafe invalid 👎
    """
)
"""Words that speak against an answer in whatever column they stand."""
MAX_RANK = 2**31 - 1
"""What the database's integers hold."""


def is_liked(value: object, column: str) -> bool:
    """Whether a label calls its answer good.

    Raises:
        RowLeftOut: the value is neither known to be good nor known to be bad.
    """
    word = str(value).strip().lower().replace(" ", "_").replace("-", "_")
    if word.startswith("_"):
        word = f"-{word[1:]}"  # A minus sign, which the line above replaced.
    if isinstance(value, bool | int | float | str) and word in _GOOD:
        return True
    if isinstance(value, bool | int | float | str) and word in _BAD:
        return False
    raise not_understood(column, value)


def is_word(value: object) -> bool:
    """Whether a value is no free text: a number, or a word that is known to mean good or bad."""
    if not isinstance(value, str):
        return True
    try:
        is_liked(value, "")
    except RowLeftOut:
        return False
    return True


def is_verdict_against(value: object) -> bool:
    """Whether a column that nobody knows holds a word that calls its answer bad."""
    return isinstance(value, str) and re.sub(r"[-\s]+", "_", value.strip().lower()) in _AGAINST


def number(value: object, column: str) -> float:
    """A finite number, which may be written as a text.

    Raises:
        RowLeftOut: the value is no number.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            raise not_understood(column, value) from None
        if math.isfinite(found):
            return found
    raise not_understood(column, value)


def rank(value: object, whose: str) -> int:
    """A whole number from 0, which may be written as 1.0 or "1".

    Raises:
        ValueError: the value is no such number.
    """
    try:
        found = number(value, "rank")
    except RowLeftOut:
        is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        shown = str(value) if is_plain else kind_of(value)
        raise ValueError(_bad_rank(whose, shown)) from None
    if not found.is_integer() or not 0 <= found <= MAX_RANK:
        raise ValueError(_bad_rank(whose, str(value)))
    return int(found)


def _bad_rank(whose: str, shown: str) -> str:
    return f'the "rank" of {whose} is {shown}, not a whole number from 0 to {MAX_RANK}'


def not_understood(column: str, value: object) -> RowLeftOut:
    """The row's exclusion for this value."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return RowLeftOut(
        Reason.LABEL_NOT_UNDERSTOOD,
        f'"{column}" is {shown}, which is not known to mean good or bad',
    )
