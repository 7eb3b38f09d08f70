"""`Settings`: where things are and the secrets, from the environment (`REWARDLOOP_*`)."""

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rewardloop.errors import InvalidInput


class Settings(BaseSettings):
    """Addresses and secrets of one deployment. Secrets have no defaults."""

    # Empty means unset: compose files and the embedded stack cannot leave a variable out.
    model_config = SettingsConfigDict(
        env_prefix="REWARDLOOP_", env_ignore_empty=True, extra="ignore", frozen=True
    )

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
    """Key of a foreign judging engine; left out, `api_key` is sent to one of
    `generator_urls`, and to no other."""
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
    swap_drain_seconds: float = Field(default=60.0, gt=0, le=3600)
    """So long a swap waits for requests in flight before it ends them (docs/decisions/0024)."""
    max_requests_in_flight: int = Field(default=8192, ge=1)
    """Requests that one key may have in flight at one service process; more get 429."""
    max_requests_per_second: float = Field(default=5000, gt=0)
    """Requests that one key may send to one service process in a second, with as many at once."""
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
