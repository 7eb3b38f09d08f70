"""Around the loop: human rankings, EFT examples, new prompts, evaluations."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from rewardloop.records import EvaluationState, JudgementMode, Preference, StopWish
from rewardloop.store.models.base import Base, Json, MaybeJson, one_of


class RankedResponse(Base):
    """A human-ranked response to a prompt."""

    __tablename__ = "ranked_responses"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    position: Mapped[int]
    """Counts from 0, best rank first."""
    rank: Mapped[int]
    """0 is the best; equal ranks are a human tie."""
    text: Mapped[str]
    imitate: Mapped[bool] = mapped_column(server_default="true")
    """False where humans called it bad: IFT does not learn it, even if it is the best."""
    __table_args__ = (
        UniqueConstraint("prompt_id", "position"),
        CheckConstraint("rank >= 0", name="rank_counts_from_zero"),
    )


class RankedSplit(Base):
    """Which ranked prompts a run learns from, and which it only measures its judges by."""

    __tablename__ = "ranked_splits"
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    held_out: Mapped[bool]
    response_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default="{}")
    """The responses that the prompt had then; those that were imported later are other runs'."""


class IftExample(Base):
    """What a bootstrap imitates, fixed when it begins: imports go on meanwhile."""

    __tablename__ = "ift_examples"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    answer: Mapped[str]


class Assessment(Base):
    """One version as the judge of ranked responses.

    `eft`: the SFT baseline judges the training part, to make EFT data of it. `health`: a
    version judges the held-out part, and `metrics` holds its agreement with the humans.
    """

    __tablename__ = "assessments"
    id: Mapped[int] = mapped_column(primary_key=True)
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    purpose: Mapped[str]
    mode: Mapped[str]
    metrics: Mapped[Json | None]
    """None until every judgement is there."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("iteration_id", "version_id", "purpose", "mode"),
        one_of("purpose", "eft", "health"),
        one_of("mode", *JudgementMode),
    )


class RankedJudgement(Base):
    """One settled judgement of a human-ranked response."""

    __tablename__ = "ranked_judgements"
    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessments.id"))
    ranked_response_id: Mapped[int] = mapped_column(ForeignKey("ranked_responses.id"))
    judge_index: Mapped[int]
    raw_text: Mapped[str]
    score: Mapped[float | None]
    reason: Mapped[str | None]
    rubric_version: Mapped[str]
    judge_version: Mapped[str]
    nonce: Mapped[str | None]
    unscored_before: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    distribution: Mapped[Json | None] = mapped_column(MaybeJson)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("assessment_id", "ranked_response_id", "judge_index"),
        CheckConstraint("(score IS NULL) <> (reason IS NULL)", name="score_or_reason"),
        CheckConstraint("score BETWEEN 0 AND 5", name="score_on_the_scale"),
    )


class EftExample(Base):
    """A judgement that agreed with the humans and was kept for training."""

    __tablename__ = "eft_examples"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    ranked_judgement_id: Mapped[int] = mapped_column(
        ForeignKey("ranked_judgements.id"), primary_key=True
    )


class CandidatePrompt(Base):
    """What the prompt model wrote: a new prompt, or the reason why it is none."""

    __tablename__ = "candidate_prompts"
    iteration_id: Mapped[UUID] = mapped_column(ForeignKey("iterations.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompts.id"))
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        CheckConstraint("(prompt_id IS NULL) <> (reason IS NULL)", name="kept_or_reason"),
    )


class Evaluation(Base):
    """Head to head of two versions, A against B."""

    __tablename__ = "evaluations"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    version_a_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    version_b_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    config: Mapped[Json]
    """The resolved `config.Evaluation`."""
    state: Mapped[str] = mapped_column(server_default=EvaluationState.QUEUED)
    wish: Mapped[str | None]
    """`cancel` while it runs and was asked to stop."""
    result: Mapped[Json | None]
    error: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    """When the first of its failures in a row was; None while it goes on."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", *EvaluationState),
        CheckConstraint(
            f"wish IS NULL OR (wish = '{StopWish.CANCEL}' AND state = 'running')",
            name="only_what_runs_is_asked",
        ),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_says_why"),
        CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="success_has_result"),
        CheckConstraint("version_a_id <> version_b_id", name="two_versions"),
    )


class EvaluationAnswer(Base):
    """A version's answer to an evaluation prompt; evaluations with one sampling share it."""

    __tablename__ = "evaluation_answers"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    sampling: Mapped[Json]
    text: Mapped[str | None]
    reason: Mapped[str | None]
    """Why there is no answer: the prompt was refused."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        UniqueConstraint("version_id", "prompt_id", "sampling"),
        CheckConstraint("(text IS NULL) <> (reason IS NULL)", name="text_or_reason"),
    )


class Comparison(Base):
    """One pairwise judgement, in one order."""

    __tablename__ = "comparisons"
    evaluation_id: Mapped[UUID] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    a_first: Mapped[bool] = mapped_column(primary_key=True)
    """Whether A's answer was shown first."""
    raw_text: Mapped[str]
    preference: Mapped[str | None]
    reason: Mapped[str | None]
    rubric_version: Mapped[str | None]
    """None of comparisons that were stored before it was."""
    judge_version: Mapped[str]
    nonce: Mapped[str | None]
    distribution: Mapped[Json | None] = mapped_column(MaybeJson)
    """By expectation: the probability of each preference."""
    probability: Mapped[float | None]
    """By expectation: that the answer shown first is the better one."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    __table_args__ = (
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability_is_one"),
        one_of("preference", *Preference),
        CheckConstraint("(preference IS NULL) <> (reason IS NULL)", name="preference_or_reason"),
    )


class FailedItem(Base):
    """What failed beside the roll-out: a ranked response to judge, an evaluation's answer or
    comparison. `subject_id` is the iteration's or the evaluation's."""

    __tablename__ = "failed_items"
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(primary_key=True)
    """What it is, within its kind; as in `assessment 3, response 17`."""
    num_attempts: Mapped[int]
    """Failed ones that were the item's own."""
    is_dead: Mapped[bool] = mapped_column(server_default="false")
    """It is left out: it failed as often as a prompt may."""
    not_before: Mapped[datetime]
    """When the next attempt may begin."""
    last_error: Mapped[str]
    last_error_kind: Mapped[str]
    __table_args__ = (one_of("kind", "ranked_response", "answer", "comparison"),)
