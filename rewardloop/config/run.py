"""`RunConfig`: the experiment, whole. Its resolved form is stored with the run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from rewardloop.config.bounds import LONG, MANY, STORED, AtMost
from rewardloop.config.explain import explain
from rewardloop.config.frozen import Frozen
from rewardloop.config.judging import Health, Judging, Rollout, Sampling
from rewardloop.config.pairing import Anchored, Consistency, Pairing
from rewardloop.config.prompts import PromptSource
from rewardloop.config.training import FullWeights, Lora, SupervisedTraining, Training
from rewardloop.errors import InvalidInput
from rewardloop.records import JudgementMode

_BEFORE_THE_KEY = {
    "bootstrap": {"share_rankings": True},
    "prompts": {"allow_evaluation_prompts": True},
}
"""What runs did that were stored before a key was, where that is not the key's default."""


class Eft(Frozen):
    """Evaluation fine-tuning data: judgements that order responses as humans did."""

    judging: Judging = Judging()
    """How the SFT baseline judges each ranked response, and how often; the examples teach
    `free` judging in any case."""
    held_out_fraction: float = Field(default=0.25, gt=0, lt=1)
    """Of the ranked prompts: never trained on, and what judges are measured by."""
    max_score_share: float = Field(default=0.4, gt=0, le=1)
    """The most frequent score is thinned out until it is at most this part, or no more
    frequent than the next one: two scores that have half each stay so."""
    max_examples: Annotated[int, AtMost(MANY)] = Field(default=1630, ge=1)
    """Paper: 1,630 or 1,775 (two readings)."""


class Bootstrap(Frozen):
    """From a pretrained M0 to M1: SFT on human answers (IFT), the SFT baseline's judgements
    as judge tasks (EFT), SFT of M0 on both."""

    dataset: str = "ranked"
    """Prompts with human-ranked responses."""
    share_rankings: bool = False
    """Whether a ranked prompt may be an IFT example and give judge tasks too. The paper keeps
    the two apart; then of the ranked prompts to learn from at most half are left to IFT, as
    many as it lacks, and the others are judged for EFT."""
    max_ift_examples: Annotated[int, AtMost(MANY)] = Field(default=3200, ge=1)
    ift: SupervisedTraining = SupervisedTraining()
    """Trains the SFT baseline, on IFT alone."""
    eft: Eft = Eft()
    ift_and_eft: SupervisedTraining = SupervisedTraining()
    """Trains M1, from M0."""


class Evaluation(Frozen):
    """Head to head of two versions on held-out prompts: both orders, a tie where the
    orders disagree (paper: 256 prompts)."""

    dataset: str = "evaluation"
    num_prompts: Annotated[int, AtMost(MANY)] = Field(default=256, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: Annotated[int, AtMost(LONG)] = Field(default=512, ge=1)
    mode: JudgementMode = JudgementMode.FREE
    """In `expected` a prompt's two orders give one figure: the mean probability that A's answer
    is the better one. Above a half A wins."""
    judge_max_tokens: int = Field(default=256, ge=8, le=8192)
    judge_version: str | None = None
    """The model version that the generators serve while they judge; None takes the newer
    of the two. Means nothing to a foreign judging engine."""


class RunConfig(Frozen):
    """One experiment. Everything that changes its outcome is in here."""

    name: str = Field(default="run", min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**31)
    base_version: str | None = None
    """The model version to start from; None takes the one that is being served, or with a
    bootstrap the pretrained one that was imported first."""
    replay: UUID | None = None
    """Another run, whose first iteration's responses and judgements the first iteration takes
    over, to compare pair policies and losses without generating again."""
    bootstrap: Bootstrap | None = None
    """If given, the run begins at a pretrained M0 and makes M1 first."""
    prompts: PromptSource = PromptSource()
    sampling: Sampling = Sampling()
    judging: Judging = Judging()
    rollout: Rollout = Rollout()
    lag: int = Field(default=0, ge=0, le=1)
    """How many versions answers may be older than the model that is trained on them. With 1 an
    iteration samples while the one before it trains. Paper: 0."""
    pairing: Pairing = Pairing()
    health: Health = Health()
    training: Training = Training()
    evaluation: Evaluation | None = None
    """If given, each new version meets the one before it, and the SFT baseline."""

    @model_validator(mode="before")
    @classmethod
    def _eft_teaches_this_rubric(cls, data: Any) -> Any:
        """`bootstrap.eft.judging.rubric` is that of `judging` where it is left out."""
        match data:
            case {"bootstrap": dict(bootstrap), "judging": {"rubric": rubric}}:
                eft = bootstrap.get("eft", {})
                judging = eft.get("judging", {}) if isinstance(eft, dict) else None
                if isinstance(judging, dict):
                    eft = {**eft, "judging": {"rubric": rubric, **judging}}
                    return {**data, "bootstrap": {**bootstrap, "eft": eft}}
        return data

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        if info.context != STORED:
            self._require_sense()
        return self

    def _require_sense(self) -> None:
        if isinstance(self.pairing.policy, Anchored) and self.prompts.self_instruct is not None:
            raise ValueError(
                "pairing.policy anchored needs the same prompts in each iteration, for which the "
                "run's first model has answers; remove prompts.self_instruct"
            )
        if isinstance(self.pairing.policy, Consistency) and self.judging.num_judgements == 1:
            expected = self.judging.mode is JudgementMode.EXPECTED
            mend = "judging.mode to free or constrained" if expected else "it to 2 or more"
            raise ValueError(
                "pairing.policy consistency compares repeated judgements of an answer, and "
                f"judging.num_judgements is 1; set {mend}, or choose another policy"
            )
        if self.lag and self.training.early_stopping is not None:
            raise ValueError(
                "lag is 1, so that others may use the engines while the model trains, and "
                "training.early_stopping asks them then; set lag to 0 or early_stopping to null"
            )
        if self.bootstrap and self.bootstrap.eft.judging.mode is JudgementMode.EXPECTED:
            raise ValueError(
                "bootstrap.eft.judging.mode is expected, which writes no judgement that a model "
                "could learn to write; set it to free or constrained (judging.mode may be "
                "expected)"
            )
        if self.bootstrap and _of_other_sizes(
            self.bootstrap.ift_and_eft.weights, self.training.weights
        ):
            raise ValueError(
                "bootstrap.ift_and_eft.weights and training.weights are adapters of another rank "
                "or alpha, and training goes on from the bootstrap's adapter: give both the same"
            )
        if self.bootstrap and self.bootstrap.eft.judging.rubric != self.judging.rubric:
            raise ValueError(
                "bootstrap.eft.judging.rubric differs from judging.rubric, so that the model would "
                "learn to judge by one rubric and be asked by another; leave it out"
            )

    def digest(self) -> str:
        """sha256 of the resolved config in canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _of_other_sizes(one: FullWeights | Lora, other: FullWeights | Lora) -> bool:
    return isinstance(one, Lora) and isinstance(other, Lora) and one != other


def parse_run_config(data: dict[str, Any]) -> RunConfig:
    """Check `data` against the schema.

    Raises:
        InvalidInput: naming every key that is unknown or wrong.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(explain(error, RunConfig)) from error


def stored_run_config(data: Mapping[str, Any]) -> RunConfig:
    """The resolved config of a run, which may be older than some keys: what it lacks is what
    was done then, and what is refused today is taken, since it was run."""
    older = {
        part: {**before, **data[part]}
        for part, before in _BEFORE_THE_KEY.items()
        if data.get(part) is not None
    }
    return RunConfig.model_validate({**data, **older}, context=STORED)
