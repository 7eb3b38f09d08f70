"""What one row of a file says: a conversation and its candidate answers.

Every format's reader makes this form, and references and rankings are derived from
it; nothing else of a row reaches training. A candidate carries the grade that its row
gives, in the row's own terms: nothing is inferred here. Pure; knows no format and no
file.
"""

from dataclasses import dataclass

from rewardloop.records import Message


@dataclass(frozen=True, slots=True)
class Reference:
    """The answer to learn: the row holds it and does not grade it."""


@dataclass(frozen=True, slots=True)
class Liked:
    """A thumb up, or a label such as "desirable"."""


@dataclass(frozen=True, slots=True)
class Disliked:
    """A thumb down, or a label such as "undesirable"."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A place among the candidates of the same row."""

    rank: int
    """Lower is better; equal ranks are a tie. Ranks of two rows say nothing of each other."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a rating is measured on; ratings of two scales are never compared."""

    name: str
    low: float | None = None
    """None where the scale's ends are not known, so that no rating says "good" by itself."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """A number, higher is better."""

    value: float
    scale: Scale


@dataclass(frozen=True, slots=True)
class Ungraded:
    """An answer that is not to be learnt, or of which the row does not say how good it is."""


Grade = Reference | Liked | Disliked | Ranked | Rated | Ungraded


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to a conversation."""

    text: str
    grade: Grade


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that ends in a user's turn, with the answers that one row has to it."""

    messages: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    source: str
    """The format and the row's own id, or the line's number: `oasst:6ab24d72`, `alpaca:#3`."""
    num_later_turns: int = 0
    """Turns after the candidate that are not read."""
