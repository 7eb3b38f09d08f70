"""Asks generator replicas for samples."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Self

from rewardloop.clients.http import call, connect
from rewardloop.config import Sampling, SelfInstruct
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
        answer = await self._post(
            "/v1/chat/completions",
            {
                "messages": list(messages),
                "n": count,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
            },
        )
        return _samples(answer, count)

    async def complete(
        self, text: str, how: SelfInstruct, stop: Sequence[str]
    ) -> tuple[str, str | None]:
        """The model's continuation of a plain text, up to a stop string, and its finish reason:
        "length" where `max_tokens` cut it off, None where a foreign engine gives none.

        Raises:
            UpstreamRejected, UpstreamUnavailable: as for `sample`.
        """
        answer = await self._post(
            "/v1/completions",
            {
                "prompt": text,
                "stop": list(stop),
                "temperature": how.temperature,
                "top_p": how.top_p,
                "max_tokens": how.max_tokens,
            },
        )
        choice = answer["choices"][0]
        return str(choice["text"] or ""), choice.get("finish_reason")

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        chosen = min(range(len(self._replicas)), key=self._in_flight.__getitem__)
        self._in_flight[chosen] += 1
        try:
            return await call(
                self._replicas[chosen],
                "POST",
                path,
                retry_seconds=RETRY_SECONDS,
                json={"model": self._model, **body},
            )
        finally:
            self._in_flight[chosen] -= 1


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
