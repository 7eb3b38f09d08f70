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


class PromptSource(_Frozen):
    dataset: str = "seed"
    """Name of an imported prompt dataset."""
    num_per_iteration: int = Field(default=32, ge=1)
    """Each iteration takes the next prompts of the dataset, starting over at its end."""


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


class Pairing(_Frozen):
    """Best mean score against worst (paper); equal means are dropped."""

    min_margin: float = Field(default=0.0, ge=0, le=5)
    """A pair needs a score difference above this."""


class FullWeights(_Frozen):
    kind: Literal["full"] = "full"


class Lora(_Frozen):
    """Low-rank adapters, merged into the weights when the checkpoint is published."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)


class Training(_Frozen):
    """DPO (paper: lr 1e-6 decaying to 1e-7, batch 16, dropout 0.1, beta 0.1)."""

    weights: Annotated[FullWeights | Lora, Field(discriminator="kind")] = FullWeights()
    learning_rate: float = Field(default=1e-6, gt=0)
    learning_rate_floor: float = Field(default=1e-7, ge=0)
    """Where the linear decay ends."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per optimizer step."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Pairs per forward pass; must divide `batch_size`."""
    num_epochs: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    beta: float = Field(default=0.1, gt=0)
    max_length: int = Field(default=1024, ge=16)
    """Tokens of prompt and response together; longer ones are cut."""


class RunConfig(_Frozen):
    """One experiment. Everything that changes its outcome is in here."""

    name: str = Field(default="run", min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**31)
    base_version: str | None = None
    """The model version to start from; None takes the one that is being served."""
    prompts: PromptSource = PromptSource()
    sampling: Sampling = Sampling()
    judging: Judging = Judging()
    rollout: Rollout = Rollout()
    pairing: Pairing = Pairing()
    training: Training = Training()

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
    training = config.training
    if training.batch_size % training.micro_batch_size:
        raise InvalidInput(
            f"training.batch_size {training.batch_size} is not a multiple of "
            f"training.micro_batch_size {training.micro_batch_size}: change one of the two."
        )
    if training.learning_rate_floor >= training.learning_rate:
        raise InvalidInput(
            f"training.learning_rate_floor {training.learning_rate_floor} is not below "
            f"training.learning_rate {training.learning_rate}: the rate decays to the floor."
        )
    return config


def explain(error: ValidationError) -> str:
    """One sentence per wrong key of a pydantic error."""
    return " ".join(_explain_one(dict(item)) for item in error.errors())


def _explain_one(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(the whole document)"
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key; remove it or correct its spelling."
    return f"{key}: {item['msg']}; got {item['input']!r}."
