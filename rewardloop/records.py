"""Frozen records and the words that states are spelled with.

These travel between rooms and over the wire. They know nothing of SQL or HTTP.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn of a conversation, in the OpenAI chat format."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A conversation that ends in a user's turn, and perhaps a good answer to it."""

    messages: tuple[Message, ...]
    reference: str | None
    """A human's answer, where the source has one."""
    source: str
    """Where it came from: the format and the file's own id, e.g. `oasst:6ab24d72`."""


class IterationState(StrEnum):
    QUEUED = "queued"
    """Waits for the iteration before it, or for another run to leave the engines."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Phase(StrEnum):
    """What a running iteration is doing; each phase has one owner."""

    WAITING = "waiting"
    PREPARE = "prepare"
    """The controller brings every replica to the base version."""
    ROLLOUT = "rollout"
    """Roll-out tasks sample and judge."""
    PAIRING = "pairing"
    """The controller turns scores into preference pairs."""
    TRAIN = "train"
    """The trainer owns the iteration."""
    SWAP = "swap"
    """The controller activates the new version on every replica."""
    DONE = "done"


class PromptState(StrEnum):
    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    REJECTED = "rejected"
    """The generator refused it (too long, say); the reason is stored."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class JudgementMode(StrEnum):
    FREE = "free"
    """The judge writes as it likes and its score is parsed: the paper."""
    CONSTRAINED = "constrained"
    """The engine's structured output forces a parsable score."""


class UnscoredReason(StrEnum):
    """Why a judgement carries no score. Never stored as a number."""

    NO_SCORE = "no_score"
    OUT_OF_RANGE = "out_of_range"
    CONFLICTING = "conflicting"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    """The judge's engine rejected the request, e.g. the response does not fit its context."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a written judgement says: a score from 0 to 5, or why there is none."""

    score: float | None
    reason: UnscoredReason | None

    def __post_init__(self) -> None:
        assert (self.score is None) != (self.reason is None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the generator."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    weight_version: str


@dataclass(frozen=True, slots=True)
class WrittenJudgement:
    """One judgement of one response, as the judge service returned it."""

    raw_text: str
    verdict: Verdict
    rubric_version: str
    judge_version: str
    mode: JudgementMode
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response with the mean of its parsed scores; `score` is None where none parsed."""

    response_id: int
    text: str
    score: float | None


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one prompt, the better one first."""

    chosen: ScoredResponse
    rejected: ScoredResponse

    @property
    def margin(self) -> float:
        assert self.chosen.score is not None
        assert self.rejected.score is not None
        return self.chosen.score - self.rejected.score
