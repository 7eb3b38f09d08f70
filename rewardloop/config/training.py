"""Supervised training and DPO."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from rewardloop.config.bounds import LONG, MANY, AtMost
from rewardloop.config.frozen import Frozen
from rewardloop.records import JudgementMode

MicroBatchSize = Annotated[
    Annotated[int, AtMost(65_536), Field(ge=1), Tag("number")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "number"),
]


class FullWeights(Frozen):
    kind: Literal["full"] = "full"


class Lora(Frozen):
    """Low-rank adapters on all linear layers but the output's. A version is the adapter alone, on
    a base of full weights, and the next one goes on from it, with the same rank and alpha."""

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, AtMost(4096)] = Field(default=16, ge=1)
    alpha: Annotated[int, AtMost(65_536)] = Field(default=32, ge=1)


class Optimisation(Frozen):
    """What supervised training and DPO have in common."""

    weights: Annotated[FullWeights | Lora, Field(discriminator="kind")] = FullWeights()
    learning_rate: Annotated[float, AtMost(1)] = Field(gt=0)
    learning_rate_floor: Annotated[float, AtMost(1)] = Field(ge=0)
    """Where the decay ends."""
    batch_size: Annotated[int, AtMost(65_536)] = Field(default=16, ge=1)
    """Examples, or pairs, per optimizer step."""
    micro_batch_size: MicroBatchSize = "auto"
    """Examples, or pairs, per forward pass, which changes rounding alone; a number must divide
    `batch_size`. `auto` takes as many tokens as the trainer's memory holds."""
    num_epochs: Annotated[float, AtMost(1000)] = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_gradient_norm: Annotated[float, AtMost(1e6)] | None = Field(default=1.0, gt=0)
    """A step's gradient is scaled down to this L2 norm where it is longer; None scales none.
    The paper gives none; 1.0 is TRL's."""
    max_length: Annotated[int, AtMost(LONG)] = Field(default=1024, ge=16)
    """Tokens of prompt and response together; longer ones are cut."""
    save_every_steps: Annotated[int, AtMost(MANY)] | None = Field(default=50, ge=1)
    """A state from which a stopped training goes on is saved every so many optimizer steps and
    at the end; None saves one only where training is paused or cancelled."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.micro_batch_size != "auto" and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}: change one of the two"
            )
        if self.learning_rate_floor >= self.learning_rate:
            raise ValueError(
                f"learning_rate_floor {self.learning_rate_floor} is not below "
                f"learning_rate {self.learning_rate}: the rate decays to the floor"
            )
        return self


class SupervisedTraining(Optimisation):
    """SFT, with the loss on the response only (paper: lr 5.5e-6 decaying to 1.1e-6 by a
    cosine, batch 16, dropout 0.1; the number of epochs is not given)."""

    learning_rate: Annotated[float, AtMost(1)] = Field(default=5.5e-6, gt=0)
    learning_rate_floor: Annotated[float, AtMost(1)] = Field(default=1.1e-6, ge=0)


class DpoLoss(Frozen):
    """DPO alone (Rafailov et al., arXiv 2305.18290, equation 7)."""

    kind: Literal["dpo"] = "dpo"


class DpoWithLikelihood(Frozen):
    """DPO plus the chosen answer's negative log-likelihood per token (Iterative RPO, arXiv
    2404.19733, equation 1)."""

    kind: Literal["dpo_likelihood"] = "dpo_likelihood"
    weight: Annotated[float, AtMost(1000)] = Field(default=1.0, gt=0)
    """alpha of the likelihood term."""


class WinnersOnly(Frozen):
    """SFT on the chosen answers: the paper's ablation (section 3.3)."""

    kind: Literal["sft_winners"] = "sft_winners"


class EarlyStopping(Frozen):
    """Every so many steps, the model's answers to validation prompts against those of the
    check before (paper: 200 steps, 253 prompts, pairwise). Training ends once the newer
    ones do not win more often than they lose, and the check before is published."""

    every_num_steps: Annotated[int, AtMost(MANY)] = Field(default=200, ge=1)
    dataset: str = "validation"
    num_prompts: Annotated[int, AtMost(MANY)] = Field(default=253, ge=1)
    max_tokens: Annotated[int, AtMost(LONG)] = Field(default=512, ge=1)
    mode: JudgementMode = JudgementMode.FREE
    """How comparisons are written. EFT teaches scoring, not comparing, so a small model may
    need `constrained` here even where it judges freely."""
    judge_max_tokens: int = Field(default=256, ge=8, le=8192)


class Training(Optimisation):
    """DPO (paper: lr 1e-6 decaying to 1e-7, batch 16, dropout 0.1, beta 0.1)."""

    learning_rate: Annotated[float, AtMost(1)] = Field(default=1e-6, gt=0)
    learning_rate_floor: Annotated[float, AtMost(1)] = Field(default=1e-7, ge=0)
    beta: Annotated[float, AtMost(1000)] = Field(default=0.1, gt=0)
    loss: Annotated[DpoLoss | DpoWithLikelihood | WinnersOnly, Field(discriminator="kind")] = (
        DpoLoss()
    )
    early_stopping: EarlyStopping | None = None
