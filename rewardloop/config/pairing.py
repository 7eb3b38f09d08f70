"""How scores become preference pairs."""

from typing import Annotated, Literal

from pydantic import Field

from rewardloop.config.bounds import AtMost
from rewardloop.config.frozen import Frozen


class BestWorst(Frozen):
    """Best mean score against worst (Yuan et al., section 2.3)."""

    kind: Literal["best_worst"] = "best_worst"


class LengthControl(Frozen):
    """The shortest of the best against the longest of the worst (Meta-Rewarding, arXiv
    2407.19594, section 2.2)."""

    kind: Literal["length_control"] = "length_control"
    rho: float = Field(default=0.1, ge=0, lt=0.5)
    """Part of the prompt's score range that counts as the top, and as the bottom."""


class SeveralPairs(Frozen):
    """The pairs of a prompt with the widest margins."""

    kind: Literal["several"] = "several"
    max_pairs_per_prompt: Annotated[int, AtMost(10_000)] = Field(default=3, ge=1)


class Consistency(Frozen):
    """Best against worst, with labels softened by how well repeated judgements agree on the
    order (after CREAM, arXiv 2410.12735; there the rankings of two successive models are
    compared, here those of the judge's own samples, which are stored)."""

    kind: Literal["consistency"] = "consistency"


class Anchored(Frozen):
    """The best answer against the worst of the run's first model to the same prompt
    (anchored rejection, Temporal Self-Rewarding, arXiv 2508.06026)."""

    kind: Literal["anchored"] = "anchored"


PairPolicy = BestWorst | LengthControl | SeveralPairs | Consistency | Anchored


class Pairing(Frozen):
    """How stored scores become preference pairs; equal means never do, nor do equal texts."""

    min_margin: float = Field(default=0.0, ge=0, le=5)
    """A pair needs a score difference above this."""
    cut_answers: Literal["keep", "drop"] = "keep"
    """Whether an answer that `sampling.max_tokens` cut off can be a side. A kept one has no end
    of turn in the loss."""
    policy: Annotated[PairPolicy, Field(discriminator="kind")] = BestWorst()
