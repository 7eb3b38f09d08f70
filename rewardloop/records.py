"""Frozen records and the words that states are spelled with.

These travel between rooms and over the wire. They know nothing of SQL or HTTP.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Literal

from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

Role = Literal["system", "user", "assistant"]

VERSION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
"""How a model version is named, and its folder with it."""


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


@dataclass(frozen=True, slots=True)
class RankedText:
    """One human-ranked response to a prompt."""

    text: str
    rank: int
    """0 is the best; equal ranks are a human tie."""
    imitate: bool = True
    """False where humans called it bad: it is no answer to learn, even if it is the best."""


MAX_RANKED_RESPONSES = 100
"""To one prompt; every two of them are a comparison."""


@dataclass(frozen=True, slots=True)
class RankedPrompt:
    """A prompt with responses that humans put in order."""

    prompt: PromptRecord
    responses: tuple[RankedText, ...]
    """At least two."""


class Scope(StrEnum):
    """What an API key may do."""

    READ = "read"
    """See state, counts, scores and reports."""
    RUN = "run"
    """Start and change runs and evaluations, import prompts."""
    EXPORT = "export"
    """Take preference data and answers out."""
    ADMIN = "admin"
    """Make, list and revoke keys."""


class IterationKind(StrEnum):
    BOOTSTRAP = "bootstrap"
    """Index 0: from a pretrained M0 to M1 (IFT and EFT)."""
    IMPROVE = "improve"
    """Index t: from M_t to M_t+1 on M_t's own judgements."""


class IterationState(StrEnum):
    QUEUED = "queued"
    """Waits for the iteration before it, or for another run to leave the engines."""
    RUNNING = "running"
    PAUSED = "paused"
    """Holds no engine, and goes on when somebody resumes it."""
    CANCELLED = "cancelled"
    """Stopped by somebody; what it stored stays, and a retry goes on from there."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Stopped by an error; a retry goes on from what it stored."""


class Phase(StrEnum):
    """What a running iteration is doing; each phase has one owner."""

    WAITING = "waiting"
    TRAIN_BASELINE = "train_baseline"
    """The trainer makes the SFT baseline from IFT data."""
    SWAP_BASELINE = "swap_baseline"
    JUDGE_RANKED = "judge_ranked"
    """The SFT baseline judges the human-ranked responses."""
    SELECT_EFT = "select_eft"
    """The controller keeps the judgements that agree with the humans."""
    PROMPT_MODEL = "prompt_model"
    """The controller brings every replica to the fixed prompt model, where it has no upstream."""
    PROMPTS = "prompts"
    """The fixed prompt model writes new prompts."""
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
    ASSESS = "assess"
    """The new version judges the held-out rankings."""
    DONE = "done"


class PromptState(StrEnum):
    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    REJECTED = "rejected"
    """The generator refused it (too long, say); the reason is stored."""
    DEAD = "dead"
    """It failed `rollout.max_attempts` times while others succeeded; the last error is stored."""


class Stage(StrEnum):
    """What a training job makes."""

    BASELINE = "baseline"
    """A bootstrap's SFT baseline, from IFT data alone."""
    MODEL = "model"
    """The iteration's new version."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    """It was asked to stop, and saved its state; it goes on when it is asked to."""
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ReplicaState(StrEnum):
    """What a generator replica says of itself with each heartbeat."""

    READY = "ready"
    SWAPPING = "swapping"
    """It holds new requests back until other weights are verified."""
    LEAVING = "leaving"
    """It was told to end, and lets its requests end."""
    BROKEN = "broken"
    """It is out of service until it is restarted."""


class StopWish(StrEnum):
    """How an iteration, an evaluation or a training that runs is to stop."""

    PAUSE = "pause"
    """When its calls in flight have ended; a training at the next optimizer step, with its
    state saved."""
    CANCEL = "cancel"
    """Within seconds: calls are dropped, and a training child that does not stop is ended."""


class EvaluationState(StrEnum):
    QUEUED = "queued"
    """Waits for what runs to leave the engines; goes before queued iterations."""
    RUNNING = "running"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Purpose(StrEnum):
    """Why a version judges human-ranked responses."""

    EFT = "eft"
    """To make EFT examples of the training part."""
    HEALTH = "health"
    """To measure the judge by the held-out part."""


class JudgementMode(StrEnum):
    FREE = "free"
    """The judge writes as it likes and its score is parsed: the paper."""
    CONSTRAINED = "constrained"
    """The engine's structured output forces a parsable score."""
    EXPECTED = "expected"
    """Nothing is written: the score is the mean over the probabilities of the points where the
    score would stand. Not the paper's."""


class UnscoredReason(StrEnum):
    """Why a judgement carries no score. Never stored as a number."""

    NO_SCORE = "no_score"
    UNSIGNED = "unsigned"
    """There is a score, but without the nonce of the call: it may be one that the judge quotes."""
    OUT_OF_RANGE = "out_of_range"
    CONFLICTING = "conflicting"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    """The judge's engine rejected the request, e.g. the response does not fit its context."""
    IMPROBABLE = "improbable"
    """By expectation: the judge would write something else than a score in its place."""


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
    nonce: str | None
    """What its score had to name; None where its rubric asks for none."""
    prompt_tokens: int
    completion_tokens: int
    """Of this text and of those that were asked for in vain before it."""
    unscored_before: tuple[UnscoredReason, ...] = ()
    """Why what the judge wrote before it, for the same judgement, carries no score."""
    distribution: Mapping[str, float] | None = None
    """By expectation: how probable each number of points was, "0" to "5". Their sum is the mass
    that is on scores at all."""


SCORE_DECIMALS = 9
"""Means of scores are rounded to this. The mean of 0.1 and 0.2 is 0.15000000000000002: the
last bits are no judge's opinion, and rounded once, equal scores are equal to whatever
compares them."""
MARGIN_DECIMALS = 6
"""Margins are rounded further, because two rounded means may be a step too far apart:
2/3 - 1/3 would be 0.333333334, and more than 1/3 - 0."""


def mean_score(scores: Iterable[float | None]) -> float | None:
    """The rounded mean of a response's scores; None unless more than half of its judgements
    have one (2 of 3): the luck of a single one is no mean."""
    asked = list(scores)
    parsed = [score for score in asked if score is not None]
    return mean_of_parsed(parsed) if 2 * len(parsed) > len(asked) else None


def mean_of_parsed(scores: Iterable[float | None]) -> float | None:
    """The rounded mean of the scores that there are; None where there is none."""
    parsed = [score for score in scores if score is not None]
    return round(fmean(parsed), SCORE_DECIMALS) if parsed else None


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response with what its judgements say of it."""

    response_id: int
    text: str
    score: float | None
    """The `mean_score` of its judgements."""
    scores: tuple[float | None, ...] = ()
    """The single judgements' scores, by judge index; None where one did not parse."""
    is_cut: bool = False
    """Whether it ends at `sampling.max_tokens` and not where the model would have."""


class Preference(StrEnum):
    """What a pairwise judgement says."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class WrittenComparison:
    """One pairwise judgement, as the judge service returned it."""

    raw_text: str
    preference: Preference | None
    reason: UnscoredReason | None
    """Why there is no preference."""
    rubric_version: str
    judge_version: str
    nonce: str | None
    """What its preference had to name; None where it had to name none, or no judge was reached."""
    distribution: Mapping[str, float] | None = None
    """By expectation: how probable each preference was."""
    probability: float | None = None
    """By expectation: that the response shown first is the better one."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one prompt, the better one first."""

    chosen: ScoredResponse
    rejected: ScoredResponse

    @property
    def margin(self) -> float:
        """Points between the two means, to MARGIN_DECIMALS."""
        assert self.chosen.score is not None
        assert self.rejected.score is not None
        return round(self.chosen.score - self.rejected.score, MARGIN_DECIMALS)
