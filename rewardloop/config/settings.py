"""`Settings`: where things are and the secrets, from the environment (`REWARDLOOP_*`).

Invariant: a service reads the secrets that `NEEDS` names for it, and no others. One that it was
not given raises where it is used, so that a service that begins to need more is noticed in tests.
"""

import os
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rewardloop.errors import InvalidInput
from rewardloop.redaction import keep_out

NEEDS: dict[str, frozenset[str]] = {
    service: frozenset(needs.split())
    for service, needs in {
        "api": "database_url broker_url api_key checkpoint_root",
        "controller": "database_url broker_url api_key admin_key",
        "worker": "database_url broker_url api_key prompt_upstream_key",
        "trainer": "database_url broker_url api_key checkpoint_root",
        "judge": "api_key judge_upstream_key",
        "generator": "database_url api_key admin_key checkpoint_root",
        "import_base": "database_url checkpoint_root",
        "migrate": "database_url",
    }.items()
}
"""The secrets of each service, and whether it needs the checkpoints' folder."""


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
    """Generator replicas named by hand, directly: swaps never go through a load balancer.
    Those that register themselves need not be named; `[]` where all do."""
    replica_url: str | None = None
    """A generator's own address, under which it registers itself for swaps; `{hostname}` in it
    stands for the machine's name. Left out, it does not register."""
    replica_data_url: str | None = None
    """Its address for requests, where that is another one; left out, `replica_url`."""
    data_url: str | None = None
    """One OpenAI address for sampling, which may be a router that knows nothing of us. Left out,
    workers ask the replicas themselves, the least busy first."""
    swap_order: Literal["rolling", "together"] = "rolling"
    """Whether several replicas get new weights one after another, or all at once."""
    judge_url: str = "http://127.0.0.1:8002"
    judge_upstream_url: str = "http://127.0.0.1:8001"
    """The engine that writes judgements; on one machine the generator's own."""
    judge_upstream_model: str = "policy"
    judge_upstream_key: SecretStr | None = None
    """Key of a foreign judging engine; left out, `api_key` is sent to one of
    `generator_urls` and to `data_url`, and to no other."""
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
    adapters: Literal["merge", "serve"] | None = None
    """Whether an engine merges an adapter with its base, or serves it on its base beside others.
    Left out, engines with a GPU serve them: a CPU is eight times faster with merged weights."""
    max_adapters: int = Field(default=4, ge=2, le=256)
    """So many adapters one engine holds at once, where it serves them."""
    max_adapter_rank: int = Field(default=64, ge=1, le=512)
    """Of such a rank at most; memory and time of each request grow with it."""
    swap_drain_seconds: float = Field(default=60.0, gt=0, le=3600)
    """So long a swap waits for requests in flight before it ends them (docs/decisions/0024)."""
    stop_drain_seconds: float = Field(default=60.0, ge=0, le=3600)
    """So long a generator that is told to end (SIGTERM) waits for requests in flight."""
    notice_seconds: float = Field(default=2.0, ge=0, le=60)
    """So long a replica that says "not ready" still takes requests, before it ends and in a
    rolling swap: longer than a router's health checks are apart."""
    max_requests_in_flight: int = Field(default=8192, ge=1)
    """Requests that one key may have in flight at one service process; more get 429."""
    max_requests_per_second: float = Field(default=5000, gt=0)
    """Requests that one key may send to one service process in a second, with as many at once."""
    metrics_port: int = 0
    """Port of a worker's or the trainer's `/metrics`; 0 serves none."""


_REQUIRED = ("database_url", "broker_url", "api_key", "admin_key")
_OPTIONAL = ("judge_upstream_key", "prompt_upstream_key")
SECRETS = frozenset((*_REQUIRED, *_OPTIONAL))


class NotGiven(SecretStr):
    """Stands where a service holds no secret."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not given to this service")

    def get_secret_value(self) -> NoReturn:
        raise LookupError(
            f"{self._secret_value}; a service that needs it names it in rewardloop.config.NEEDS"
        )


def load_settings(service: str | None = None) -> Settings:
    """Read the environment: what `service` needs of the secrets, or all where it is None.

    Raises:
        InvalidInput: naming every variable that is missing or wrong, never its value.
    """
    try:
        settings = Settings(**_not_read(service))
    except ValidationError as error:
        wrong = [f"REWARDLOOP_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise InvalidInput("set in the environment: " + "; ".join(wrong)) from None
    except SettingsError as error:
        raise InvalidInput(
            f"set in the environment, with lists as JSON (REWARDLOOP_GENERATOR_URLS="
            f"'[\"http://host:8001\"]'): {error}"
        ) from None
    keep_out(*_secrets(settings))
    return settings


def _not_read(service: str | None) -> dict[str, Any]:
    """What stands in for the variables that the service does not need."""
    if service is None:
        return {}
    stand_ins: dict[str, Any] = {
        **{name: NotGiven(name) for name in _REQUIRED},
        **dict.fromkeys(_OPTIONAL),
        "checkpoint_root": Path(os.devnull),  # no folder: using it fails
    }
    return {name: stand_in for name, stand_in in stand_ins.items() if name not in NEEDS[service]}


def _secrets(settings: Settings) -> list[str]:
    held: list[SecretStr | None] = [getattr(settings, name) for name in SECRETS]
    return [
        secret.get_secret_value()
        for secret in held
        if secret is not None and not isinstance(secret, NotGiven)
    ]
