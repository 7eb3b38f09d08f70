"""Canaries: fixed texts whose log-probabilities show which weights an engine serves.

The trainer computed them from the published files in the engine's own dtype; the engine is
asked for the same tokens. Mean absolute differences are judged, because single bf16 logits
differ by rounding alone. Knows nothing of swaps.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardloop import checkpoints
from rewardloop.errors import CheckpointInvalid, SwapFailed
from services.generator import deadlines
from services.generator.deadlines import within

CANARY_BOUND = 0.05
"""Mean |difference| of log-probabilities, in nats, that bf16 rounding may cause in any
checkpoint. How it was found: docs/decisions/0004-canaries.md."""
ROUNDING_FACTOR = 1.5
"""Where the trainer measured that rounding does more to a checkpoint, so many times that."""


def read(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """The canaries, and the mean difference in nats that rounding may cause in them.

    Raises:
        CheckpointInvalid: there are none, or they cannot be read.
    """
    path = folder / checkpoints.CANARIES
    if not path.is_file():
        raise CheckpointInvalid(f"{folder.name} has no {checkpoints.CANARIES}; publish it again")
    try:
        document = json.loads(path.read_text())
        canaries: list[dict[str, Any]] = document["canaries"]
        rounding = float(document.get("rounding_nats", 0.0))  # older checkpoints do not say
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointInvalid(
            f"{folder.name}: {checkpoints.CANARIES} cannot be read; publish it again"
        ) from error
    if not canaries:
        raise CheckpointInvalid(f"{folder.name} has no canaries; publish it again")
    return canaries, max(CANARY_BOUND, ROUNDING_FACTOR * rounding)


def compared(
    canaries: list[dict[str, Any]], engine: list[list[float]], bound: float
) -> dict[str, Any]:
    """How far the engine's log-probabilities are from the trainer's, in nats a token."""
    differences = [
        abs(here - there)
        for canary, logprobs in zip(canaries, engine, strict=True)
        for here, there in zip(logprobs, canary["logprobs"], strict=True)
    ]
    return {
        "mean_difference": sum(differences) / len(differences),
        "max_difference": max(differences),
        "bound": bound,
        "num_tokens": len(differences),
    }


def agrees(canary: dict[str, Any]) -> bool:
    """NaN agrees with nothing."""
    return bool(canary["mean_difference"] <= canary["bound"])


def mismatch(folder: Path, canary: dict[str, Any]) -> str:
    return (
        f"{folder.name}: the engine's log-probabilities differ from the trainer's by "
        f"{canary['mean_difference']:.4f} nats a token (bound {canary['bound']:.4f}): it does not "
        "serve these weights"
    )


async def compare(app: ASGIApp, fastapi_app: Any, folder: Path, model: str) -> dict[str, Any]:
    """How far the engine's log-probabilities under `model` are from the trainer's.

    `app` is what stands behind the gate, and `model` a name that it knows.

    Raises:
        SwapFailed: the engine refuses the question.
        UpstreamUnavailable: it does not answer in time.
    """
    wanted, bound = read(folder)
    async with within(deadlines.STEP_SECONDS, f"asking for the canaries of {folder.name}"):
        asked = (ask(app, fastapi_app, canary, model) for canary in wanted)
        return compared(wanted, await asyncio.gather(*asked), bound)


async def ask(app: ASGIApp, fastapi_app: Any, canary: dict[str, Any], model: str) -> list[float]:
    """Log-probability, in nats, of each continuation token given what stands before it.

    Raises:
        SwapFailed: the engine refuses the question.
    """

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "app": fastapi_app}, receive, send)

    tokens = canary["prompt_token_ids"] + canary["continuation_token_ids"]
    request = {
        "model": model,
        "prompt": tokens,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
    }
    transport = httpx.ASGITransport(app=inner)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        answer = await client.post("/v1/completions", json=request, timeout=None)
    if not answer.is_success:
        raise SwapFailed(f"the engine does not answer canaries: {answer.text[:300]}")
    positions = answer.json()["choices"][0]["prompt_logprobs"]
    start = len(canary["prompt_token_ids"])
    return [
        float(position[str(token)]["logprob"])
        for position, token in zip(positions[start:], tokens[start:], strict=True)
    ]
