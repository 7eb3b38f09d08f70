"""`Settings`: where things are and the secrets. `RunConfig`: the experiment.

Settings come from the environment (`REWARDLOOP_*`) and differ from machine to
machine; a RunConfig comes from a file or a request, and its resolved form is
stored with the run, and refuses unknown keys.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rewardloop.errors import InvalidInput
from rewardloop.records import JudgementMode


class Settings(BaseSettings):
    """Addresses and secrets of one deployment. Secrets have no defaults."""

    model_config = SettingsConfigDict(env_prefix="REWARDLOOP_", extra="ignore", frozen=True)

    database_url: SecretStr
    """`postgresql+psycopg://user:password@host:port/name`."""
    broker_url: SecretStr
    """`redis://:password@host:port/0`; the server's eviction policy must be `noeviction`."""
    api_key: SecretStr = Field(min_length=16)
    """Opens the API and the model services' OpenAI routes."""
    admin_key: SecretStr = Field(min_length=16)
    """Opens the replicas' `/admin` routes, and nothing else."""
    generator_urls: list[str] = ["http://127.0.0.1:8001"]
    """Every generator replica, directly: swaps never go through a load balancer."""
    judge_url: str = "http://127.0.0.1:8002"
    judge_upstream_url: str = "http://127.0.0.1:8001"
    """The engine that writes judgements; on one machine the generator's own."""
    judge_upstream_model: str = "policy"
    judge_upstream_key: SecretStr | None = None
    """Key of a foreign judging engine; left out, `api_key` opens ours."""
    evaluation_judge_url: str | None = None
    """A second judge service for head-to-head evaluation, with a stronger engine behind
    it; left out, `judge_url`."""
    prompt_upstream_url: str | None = None
    """An OpenAI-compatible server with the fixed model that writes new prompts; left out,
    the generators serve the run's base version for that while."""
    prompt_upstream_model: str = "policy"
    prompt_upstream_key: SecretStr | None = None
    checkpoint_root: Path
    """Where checkpoints are published; every replica and the trainer see it."""
    metrics_port: int = 0
    """Port of a worker's or the trainer's `/metrics`; 0 serves none."""


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        InvalidInput: naming every variable that is missing or wrong, never its value.
    """
    nothing: dict[str, Any] = {}
    try:
        return Settings(**nothing)
    except ValidationError as error:
        wrong = [f"REWARDLOOP_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise InvalidInput("set in the environment: " + "; ".join(wrong)) from None
    except SettingsError as error:
        raise InvalidInput(
            f"set in the environment, with lists as JSON (REWARDLOOP_GENERATOR_URLS="
            f"'[\"http://host:8001\"]'): {error}"
        ) from None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SelfInstruct(_Frozen):
    """New prompts, written by a fixed prompt model from few shots (Yuan et al., section
    3.1.2: 8 shots, 6 of them human, T 0.6, p 0.9; the filters after Self-Instruct,
    arXiv 2212.10560, section 2.2)."""

    num_human_shots: int = Field(default=6, ge=1)
    """Prompts of the run's prompt dataset among the shots."""
    num_generated_shots: int = Field(default=2, ge=0)
    """Prompts that this run's prompt model wrote before; human ones until there are any."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=8)
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """ROUGE-L F1 to any prompt so far at which a prompt is too similar. The paper gives
    none; Self-Instruct uses 0.7."""
    max_evaluation_similarity: float = Field(default=0.5, gt=0, le=1)
    """The same against evaluation prompts: stricter, so that none leaks into training."""
    min_words: int = Field(default=3, ge=1)
    max_words: int = Field(default=150, ge=1)
    keywords: tuple[str, ...] = (
        *("image", "images", "picture", "pictures", "photo", "graph", "graphs", "chart"),
        *("diagram", "flowchart", "map", "maps", "draw", "plot", "file", "files", "video"),
        *("audio", "music", "link", "url", "website"),
    )
    """Words of tasks that a text model cannot do (after Self-Instruct)."""
    language: str | None = "en"
    """ISO 639-1 code that a prompt must be in; None takes all."""
    max_attempts_per_prompt: int = Field(default=12, ge=1)
    """Give up after so many written prompts for each wanted one."""
    min_fraction: float = Field(default=0.5, gt=0, le=1)
    """Of the wanted prompts, the part that must be found for the iteration to go on."""


class PromptSource(_Frozen):
    dataset: str = "seed"
    """Name of an imported prompt dataset."""
    num_per_iteration: int = Field(default=32, ge=1)
    """Each iteration takes the next prompts of the dataset, starting over at its end."""
    self_instruct: SelfInstruct | None = None
    """If given, each iteration trains on new prompts, and the dataset serves as shots."""


class Sampling(_Frozen):
    """How the model answers (paper: N = 4, T 0.7, p 0.9)."""

    num_samples: int = Field(default=4, ge=2, le=64)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)


class Judging(_Frozen):
    """How each answer is judged (paper: 3 samples, averaged)."""

    num_judgements: int = Field(default=3, ge=1, le=32)
    mode: JudgementMode = JudgementMode.FREE
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    """The paper gives none; 1 spares a CPU engine the sort of the whole vocabulary."""
    max_tokens: int = Field(default=512, ge=8, le=8192)


class Rollout(_Frozen):
    num_tasks: int = Field(default=1, ge=1, le=1024)
    """Roll-out tasks that run side by side, each in a worker process of its own."""
    max_prompts_in_flight: int = Field(default=32, ge=1)
    """Prompts that one task samples and judges at once."""


class BestWorst(_Frozen):
    """Best mean score against worst (Yuan et al., section 2.3)."""

    kind: Literal["best_worst"] = "best_worst"


class LengthControl(_Frozen):
    """The shortest of the best against the longest of the worst (Meta-Rewarding, arXiv
    2407.19594, section 2.2)."""

    kind: Literal["length_control"] = "length_control"
    rho: float = Field(default=0.1, ge=0, lt=0.5)
    """Part of the prompt's score range that counts as the top, and as the bottom."""


class SeveralPairs(_Frozen):
    """The pairs of a prompt with the widest margins."""

    kind: Literal["several"] = "several"
    max_pairs_per_prompt: int = Field(default=3, ge=1)


class Consistency(_Frozen):
    """Best against worst, with labels softened by how well repeated judgements agree on the
    order (after CREAM, arXiv 2410.12735; there the rankings of two successive models are
    compared, here those of the judge's own samples, which are stored)."""

    kind: Literal["consistency"] = "consistency"


class Anchored(_Frozen):
    """The best answer against the worst of the run's first model to the same prompt
    (anchored rejection, Temporal Self-Rewarding, arXiv 2508.06026)."""

    kind: Literal["anchored"] = "anchored"


PairPolicy = BestWorst | LengthControl | SeveralPairs | Consistency | Anchored


class Pairing(_Frozen):
    """How stored scores become preference pairs; equal means never do."""

    min_margin: float = Field(default=0.0, ge=0, le=5)
    """A pair needs a score difference above this."""
    policy: Annotated[PairPolicy, Field(discriminator="kind")] = BestWorst()


class Health(_Frozen):
    """When a judge has collapsed, so that the run must stop before it trains on its scores.

    Each threshold may be None, which asks nothing. The first four look at the iteration's
    own roll-out; the last two at the judge's agreement with the humans on the held-out
    rankings, as far as the run has any.
    """

    max_unparsed_rate: float | None = Field(default=0.5, ge=0, le=1)
    """Judgements without a score."""
    max_top_score_share: float | None = Field(default=0.95, ge=0, le=1)
    """Scores that are the highest of the scale."""
    max_tie_rate: float | None = Field(default=0.95, ge=0, le=1)
    """Prompts whose scored responses all have one mean."""
    max_length_correlation: float | None = Field(default=None, ge=0, le=1)
    """Spearman's |rho| between a response's length and its mean score, within prompts."""
    min_pairwise_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_spearman: float | None = Field(default=None, ge=-1, le=1)
    also_assess: tuple[JudgementMode, ...] = ()
    """Modes besides `judging.mode` in which each version judges the held-out rankings."""


class FullWeights(_Frozen):
    kind: Literal["full"] = "full"


class Lora(_Frozen):
    """Low-rank adapters, merged into the weights when the checkpoint is published."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)


class Optimisation(_Frozen):
    """What supervised training and DPO have in common."""

    weights: Annotated[FullWeights | Lora, Field(discriminator="kind")] = FullWeights()
    learning_rate: float = Field(gt=0)
    learning_rate_floor: float = Field(ge=0)
    """Where the decay ends."""
    batch_size: int = Field(default=16, ge=1)
    """Examples, or pairs, per optimizer step."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Examples, or pairs, per forward pass; must divide `batch_size`."""
    num_epochs: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_length: int = Field(default=1024, ge=16)
    """Tokens of prompt and response together; longer ones are cut."""


class SupervisedTraining(Optimisation):
    """SFT, with the loss on the response only (paper: lr 5.5e-6 decaying to 1.1e-6 by a
    cosine, batch 16, dropout 0.1; the number of epochs is not given)."""

    learning_rate: float = Field(default=5.5e-6, gt=0)
    learning_rate_floor: float = Field(default=1.1e-6, ge=0)


class DpoLoss(_Frozen):
    """DPO alone (Rafailov et al., arXiv 2305.18290, equation 7)."""

    kind: Literal["dpo"] = "dpo"


class DpoWithLikelihood(_Frozen):
    """DPO plus the chosen answer's negative log-likelihood per token (Iterative RPO, arXiv
    2404.19733, equation 1)."""

    kind: Literal["dpo_likelihood"] = "dpo_likelihood"
    weight: float = Field(default=1.0, gt=0)
    """alpha of the likelihood term."""


class WinnersOnly(_Frozen):
    """SFT on the chosen answers: the paper's ablation (section 3.3)."""

    kind: Literal["sft_winners"] = "sft_winners"


class EarlyStopping(_Frozen):
    """Every so many steps, the model's answers to validation prompts against those of the
    check before (paper: 200 steps, 253 prompts, pairwise). Training ends once the newer
    ones do not win more often than they lose, and the check before is published."""

    every_num_steps: int = Field(default=200, ge=1)
    dataset: str = "validation"
    num_prompts: int = Field(default=253, ge=1)
    max_tokens: int = Field(default=512, ge=1)


class Training(Optimisation):
    """DPO (paper: lr 1e-6 decaying to 1e-7, batch 16, dropout 0.1, beta 0.1)."""

    learning_rate: float = Field(default=1e-6, gt=0)
    learning_rate_floor: float = Field(default=1e-7, ge=0)
    beta: float = Field(default=0.1, gt=0)
    loss: Annotated[DpoLoss | DpoWithLikelihood | WinnersOnly, Field(discriminator="kind")] = (
        DpoLoss()
    )
    early_stopping: EarlyStopping | None = None


class Eft(_Frozen):
    """Evaluation fine-tuning data: judgements that order responses as humans did."""

    judging: Judging = Judging()
    """How the SFT baseline judges each ranked response, and how often; the examples teach
    `free` judging in any case."""
    held_out_fraction: float = Field(default=0.25, gt=0, lt=1)
    """Of the ranked prompts: never trained on, and what judges are measured by."""
    max_score_share: float = Field(default=0.4, gt=0, le=1)
    """The most frequent score is thinned out until it is at most this part."""
    max_examples: int = Field(default=1630, ge=1)
    """Paper: 1,630 or 1,775 (two readings)."""


class Bootstrap(_Frozen):
    """From a pretrained M0 to M1: SFT on human answers (IFT), the SFT baseline's judgements
    as judge tasks (EFT), SFT of M0 on both."""

    dataset: str = "ranked"
    """Prompts with human-ranked responses."""
    max_ift_examples: int = Field(default=3200, ge=1)
    ift: SupervisedTraining = SupervisedTraining()
    """Trains the SFT baseline, on IFT alone."""
    eft: Eft = Eft()
    ift_and_eft: SupervisedTraining = SupervisedTraining()
    """Trains M1, from M0."""


class Evaluation(_Frozen):
    """Head to head of two versions on held-out prompts: both orders, a tie where the
    orders disagree (paper: 256 prompts)."""

    dataset: str = "evaluation"
    num_prompts: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    mode: JudgementMode = JudgementMode.FREE
    judge_max_tokens: int = Field(default=256, ge=8, le=8192)
    judge_version: str | None = None
    """The model version that the generators serve while they judge; None takes the newer
    of the two. Means nothing to a foreign judging engine."""


class RunConfig(_Frozen):
    """One experiment. Everything that changes its outcome is in here."""

    name: str = Field(default="run", min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**31)
    base_version: str | None = None
    """The model version to start from; None takes the one that is being served."""
    bootstrap: Bootstrap | None = None
    """If given, the run begins at a pretrained M0 and makes M1 first."""
    prompts: PromptSource = PromptSource()
    sampling: Sampling = Sampling()
    judging: Judging = Judging()
    rollout: Rollout = Rollout()
    pairing: Pairing = Pairing()
    health: Health = Health()
    training: Training = Training()
    evaluation: Evaluation | None = None
    """If given, each new version meets the one before it, and the SFT baseline."""

    def digest(self) -> str:
        """sha256 of the resolved config in canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def parse_run_config(data: dict[str, Any]) -> RunConfig:
    """Check `data` against the schema.

    Raises:
        InvalidInput: naming every key that is unknown or wrong.
    """
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(explain(error)) from error
    stages: dict[str, Optimisation] = {"training": config.training}
    if config.bootstrap is not None:
        stages["bootstrap.ift"] = config.bootstrap.ift
        stages["bootstrap.ift_and_eft"] = config.bootstrap.ift_and_eft
    for key, stage in stages.items():
        _check_stage(key, stage)
    return config


def _check_stage(key: str, stage: Optimisation) -> None:
    if stage.batch_size % stage.micro_batch_size:
        raise InvalidInput(
            f"{key}.batch_size {stage.batch_size} is not a multiple of "
            f"{key}.micro_batch_size {stage.micro_batch_size}: change one of the two."
        )
    if stage.learning_rate_floor >= stage.learning_rate:
        raise InvalidInput(
            f"{key}.learning_rate_floor {stage.learning_rate_floor} is not below "
            f"{key}.learning_rate {stage.learning_rate}: the rate decays to the floor."
        )


def explain(error: ValidationError) -> str:
    """One sentence per wrong key of a pydantic error."""
    return " ".join(_explain_one(dict(item)) for item in error.errors())


def _explain_one(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(the whole document)"
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key; remove it or correct its spelling."
    return f"{key}: {item['msg']}; got {item['input']!r}."
