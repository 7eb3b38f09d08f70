"""Asks generator replicas for samples."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Self

from rewardloop.clients.http import call, connect
from rewardloop.config import Sampling
from rewardloop.records import Message, Sample

REQUEST_SECONDS = 240.0
RETRY_SECONDS = 60.0


class GeneratorClient:
    """Sends each request to the replica with the fewest requests of ours in flight."""

    def __init__(self, urls: Sequence[str], key: str, *, model: str = "policy") -> None:
        self._replicas = [connect(url, key, timeout_seconds=REQUEST_SECONDS) for url in urls]
        self._in_flight = [0] * len(urls)
        self._model = model

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(replica.aclose() for replica in self._replicas))

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, count: int
    ) -> list[Sample]:
        """`count` answers to one conversation.

        Raises:
            PromptTooLong: prompt and answer exceed the model's context.
            UpstreamRejected: the generator refused the request.
            UpstreamUnavailable: no answer, after retries.
        """
        chosen = min(range(len(self._replicas)), key=self._in_flight.__getitem__)
        self._in_flight[chosen] += 1
        try:
            answer = await call(
                self._replicas[chosen],
                "POST",
                "/v1/chat/completions",
                retry_seconds=RETRY_SECONDS,
                json={
                    "model": self._model,
                    "messages": list(messages),
                    "n": count,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "max_tokens": sampling.max_tokens,
                },
            )
        finally:
            self._in_flight[chosen] -= 1
        return _samples(answer, count)


def _samples(answer: dict[str, Any], count: int) -> list[Sample]:
    usage = answer["usage"]
    # The protocol counts completion tokens over all choices, so they are shared out by
    # length; the sum stays exact.
    choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    texts = [choice["message"]["content"] or "" for choice in choices]
    tokens = share_out(int(usage["completion_tokens"]), [len(text) for text in texts])
    assert len(choices) == count, f"asked for {count} samples, got {len(choices)}"
    return [
        Sample(
            text=text,
            prompt_tokens=int(usage["prompt_tokens"]),
            completion_tokens=num_tokens,
            finish_reason=choice["finish_reason"] or "unknown",
            weight_version=answer["weight_version"],
        )
        for choice, text, num_tokens in zip(choices, texts, tokens, strict=True)
    ]


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` into whole parts in proportion to `weights`; the parts sum to `total`."""
    assert weights, "the engine returned no choices"
    whole = sum(weights) or len(weights)
    shares = weights if sum(weights) else [1] * len(weights)
    bounds = [total * sum(shares[:end]) // whole for end in range(len(shares) + 1)]
    return [high - low for low, high in itertools.pairwise(bounds)]
