"""How the model answers, how answers are judged, and when a judge is no longer believed."""

from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rewardloop.config.bounds import LONG, AtMost
from rewardloop.config.frozen import Frozen
from rewardloop.config.rubrics import Rubric
from rewardloop.records import JudgementMode


class Sampling(Frozen):
    """How the model answers (paper: N = 4, T 0.7, p 0.9)."""

    num_samples: int = Field(default=4, ge=2, le=64)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: Annotated[int, AtMost(LONG)] = Field(default=512, ge=1)


class Judging(Frozen):
    """How each answer is judged (paper: 3 samples, averaged, T 0.7, p 0.9)."""

    num_judgements: int = Field(default=3, ge=1, le=32)
    """1 in mode `expected`, where it may be left out: asked again, the judge says the same."""
    mode: JudgementMode = JudgementMode.FREE
    """In `expected` nothing is sampled, so that `temperature`, `top_p`, `max_tokens` and
    `max_reasks` change nothing."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    """The paper samples judgements as it samples candidates (section 3.1.2). 1.0 spares a CPU
    engine the sort of the whole vocabulary for each token."""
    max_tokens: int = Field(default=512, ge=8, le=8192)
    max_reasks: int = Field(default=1, ge=0, le=5)
    """How often a judgement that carries no score is asked for again. What the judge wrote in
    vain is counted by its reason, and not kept."""
    rubric: Rubric = "additive"
    """What the judge is asked: `additive` (the paper's scheme of five points), `short` (a few
    lines, which small models follow better), or a template of one's own."""

    @model_validator(mode="before")
    @classmethod
    def _expected_asks_once(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("mode") == JudgementMode.EXPECTED:
            return {"num_judgements": 1, **data}
        return data

    @model_validator(mode="after")
    def _is_asked_once(self) -> Self:
        if self.mode is JudgementMode.EXPECTED and self.num_judgements != 1:
            raise ValueError(
                f"num_judgements is {self.num_judgements}, and mode expected asks once: it has no "
                "sampling noise to average out; set num_judgements to 1 or leave it out"
            )
        return self

    def in_mode(self, mode: JudgementMode) -> "Judging":
        """The same judging in another mode; in `expected` each response is judged once."""
        once = {"num_judgements": 1} if mode is JudgementMode.EXPECTED else {}
        return self.model_copy(update={"mode": mode, **once})


class Rollout(Frozen):
    num_tasks: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Roll-out tasks that run side by side, each in a worker process of its own; `auto`: as many
    as there are workers, also where one joins in the middle."""
    max_prompts_in_flight: Annotated[int, AtMost(4096)] = Field(default=32, ge=1)
    """Prompts that one task samples and judges at once."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """A prompt that failed so often while others succeeded is dead: it is left out, and listed."""
    max_dead_share: float = Field(default=0.01, ge=0, le=1)
    """Of the iteration's prompts, how many may be dead when it goes on to its pairs. Unless it
    is 0, one may be however few they are; all of them never."""

    def max_dead(self, num_items: int) -> int:
        """How many of so many may be dead."""
        if not self.max_dead_share:
            return 0
        share = floor(self.max_dead_share * num_items + 1e-9)  # 0.07 * 100 is a bit over 7
        return max(0, min(max(1, share), num_items - 1))


class Health(Frozen):
    """When a judge has collapsed, so that the run must stop before it trains on its scores.

    Each threshold may be None, which asks nothing. The first four look at the iteration's
    own roll-out (the one for length at the run's human rankings too); the last two at the
    judge's agreement with the humans on the held-out rankings, as far as the run has any.
    """

    max_unparsed_rate: float | None = Field(default=0.5, ge=0, le=1)
    """Judgements without a score."""
    max_top_score_share: float | None = Field(default=0.95, ge=0, le=1)
    """Scores that are the highest of the scale."""
    max_tie_rate: float | None = Field(default=0.95, ge=0, le=1)
    """Prompts whose scored responses all have one mean."""
    max_length_correlation: float | None = Field(default=None, ge=0, le=1)
    """By how much Spearman's rho between a response's length and its mean score, within
    prompts, may differ from that of the humans' own order on the run's rankings; without
    rankings, from 0."""
    min_pairwise_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_spearman: float | None = Field(default=None, ge=-1, le=1)
    also_assess: tuple[JudgementMode, ...] = ()
    """Modes besides `judging.mode` in which each version judges the held-out rankings."""
