"""Asks generator replicas for samples."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from rewardloop.clients.allowance import Load
from rewardloop.clients.completions import choices_of, share_out, text_of, usage_of
from rewardloop.clients.http import call_once
from rewardloop.clients.server import REQUEST_SECONDS, Server, asked_again
from rewardloop.clients.turns import Turns
from rewardloop.config import Sampling, SelfInstruct
from rewardloop.errors import UpstreamMismatch, UpstreamUnavailable
from rewardloop.records import Message, Sample

RETRY_SECONDS = 60.0
POLICY = "policy"
"""The name by which our generators serve whatever version they hold."""


MUCH_BUSIER = 1.25
"""Times as many requests of ours as the replica with the fewest, and FEW more: then a cached
prefix is not worth the wait."""
FEW = 8


@dataclass(eq=False)
class Prefix:
    """What several calls begin with alike. Pass one object to all of them: an engine computes a
    prefix once and keeps it, and the replica that had the last of these calls has it."""

    server: Server | None = None


class GeneratorClient:
    """Sends each request to the replica with the fewest requests of ours in flight, or to one
    that has its prefix and is not much busier. Where one does not answer, or not in time, the
    next try goes to another one.

    Requests may have a `key`: a replica of ours gives whoever asks again under the same key the
    same answer, also one that is still being made.
    """

    def __init__(
        self, urls: Sequence[str], key: str, *, model: str = POLICY, ours: bool = True
    ) -> None:
        """`ours` are servers behind our gate, which knows a field that others may refuse."""
        self.version: str | None = None
        """Where it is set, answers of other weights are not taken."""
        self._key = key
        self._turns = Turns()
        self._servers: list[Server] = []
        self._gone: list[Server] = []
        self.follow(urls)
        self._model = model
        self._plain_text = {"split_special_tokens": True} if ours else {}

    @property
    def urls(self) -> list[str]:
        """The replicas that are asked now."""
        return [server.url for server in self._servers]

    def follow(self, urls: Sequence[str]) -> None:
        """From now on these replicas are asked. Calls that others have in flight go on."""
        known = {server.url: server for server in self._servers}
        wanted = dict.fromkeys(urls)
        self._servers = [known.pop(url) if url in known else self._server(url) for url in wanted]
        self._gone += known.values()

    def hear(self, loads: Mapping[str, Load]) -> None:
        """What the engines at these addresses have reported."""
        for server in self._servers:
            if (load := loads.get(server.url)) is not None:
                server.hear(load)

    def standing(self) -> str:
        """For people: how many calls each server gets, and what it has reported."""
        return "; ".join(
            f"{server.url} gets {server.num_allowed} calls at once and {_reported(server.load)}"
            for server in self._servers
        )

    def _server(self, url: str) -> Server:
        return Server(
            url,
            self._key,
            probe=self._probe,
            ceiling_seconds=REQUEST_SECONDS,
            turns=self._turns,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(server.aclose() for server in (*self._servers, *self._gone)))

    async def sample(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        count: int,
        *,
        key: str | None = None,
        prefix: Prefix | None = None,
    ) -> list[Sample]:
        """`count` answers to one conversation.

        Raises:
            PromptTooLong: prompt and answer exceed the model's context.
            UpstreamRejected: the generator refused the request.
            UpstreamUnavailable: no answer, after retries.
            UpstreamMismatch: what answers is no generator of ours.
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
            key,
            prefix,
        )
        return _samples(answer, count)

    async def chat(
        self, body: dict[str, Any], *, key: str | None = None, prefix: Prefix | None = None
    ) -> dict[str, Any]:
        """What is answered to the body of a chat completion, unread.

        Raises:
            PromptTooLong, UpstreamRejected, UpstreamUnavailable, UpstreamMismatch: as for `sample`.
        """
        answer: dict[str, Any] = await self._post("/v1/chat/completions", body, key, prefix)
        return answer

    async def prompt_token_ids(self, messages: Sequence[Message]) -> list[int] | None:
        """What the engine's model is shown of a conversation, by the engine's own account;
        None where it gives none, as an engine without a tokenizer.

        Raises:
            PromptTooLong, UpstreamRejected, UpstreamUnavailable, UpstreamMismatch: as for `sample`.
        """
        answer = await self._post(
            "/v1/chat/completions",
            {"messages": list(messages), "max_tokens": 1, "return_token_ids": True},
        )
        choices_of(answer, 1, "the generator")
        found: list[int] | None = answer.get("prompt_token_ids")
        return found

    async def complete(
        self, text: str, how: SelfInstruct, stop: Sequence[str], *, key: str | None = None
    ) -> tuple[str, str | None]:
        """The model's continuation of a plain text, up to a stop string, and its finish reason:
        "length" where `max_tokens` cut it off, None where a foreign engine gives none.

        A control token that the text spells is plain text; a foreign engine takes it as it likes.

        Raises:
            UpstreamRejected, UpstreamUnavailable, UpstreamMismatch: as for `sample`.
        """
        answer = await self._post(
            "/v1/completions",
            {
                "prompt": text,
                **self._plain_text,
                "stop": list(stop),
                "temperature": how.temperature,
                "top_p": how.top_p,
                "max_tokens": how.max_tokens,
            },
            key,
        )
        (choice,) = choices_of(answer, 1, "the prompt model")
        return text_of(choice), choice.get("finish_reason")

    async def _post(
        self,
        path: str,
        body: dict[str, Any],
        key: str | None = None,
        prefix: Prefix | None = None,
    ) -> Any:
        asked = {"model": self._model, **body}

        async def ask(anew: bool) -> Any:
            return await self._post_once(self._choose(prefix), path, asked, key=key, anew=anew)

        return await asked_again(ask, RETRY_SECONDS)

    def _choose(self, prefix: Prefix | None) -> Server:
        idlest = min(self._servers, key=lambda server: server.reluctance)
        if prefix is None:
            return idlest
        if prefix.server not in self._servers or _is_far_from(prefix.server, idlest):
            prefix.server = idlest
        return prefix.server

    async def _post_once(
        self, server: Server, path: str, body: dict[str, Any], *, key: str | None, anew: bool
    ) -> Any:
        answer = await server.post(path, body, key=key, anew=anew)
        made_by = answer.get("weight_version") if isinstance(answer, dict) else None
        if self.version is not None and made_by not in (None, self.version):
            raise UpstreamUnavailable(
                f"{server.url} answered with {made_by} where {self.version} was asked"
            )
        return answer

    async def _probe(self, client: httpx.AsyncClient) -> None:
        """One token."""
        body = {"model": self._model, "prompt": "Hi", "max_tokens": 1}
        await call_once(client, "POST", "/v1/completions", json=body)


def _is_far_from(server: Server, idlest: Server) -> bool:
    """Whether the server rests after a failure, or has much more to do."""
    rest, num_asked = server.reluctance
    return rest > 0 or num_asked > MUCH_BUSIER * idlest.reluctance[1] + FEW


def _reported(load: Load | None) -> str:
    if load is None:
        return "reports nothing"
    return f"reports {load.num_running:.0f} running, {load.num_waiting:.0f} waiting"


def _samples(answer: dict[str, Any], count: int) -> list[Sample]:
    choices = choices_of(answer, count, "the generator")
    if "weight_version" not in answer:
        raise UpstreamMismatch(
            "the generator does not say which weights answered; REWARDLOOP_GENERATOR_URLS must "
            "name servers started by `python -m services.generator`"
        )
    # The protocol counts completion tokens over all choices, so they are shared out by
    # length; the sum stays exact.
    texts = [text_of(choice) for choice in choices]
    prompt_tokens, completion_tokens = usage_of(answer)
    tokens = share_out(completion_tokens, [len(text) for text in texts])
    return [
        Sample(
            text=text,
            prompt_tokens=prompt_tokens,
            completion_tokens=num_tokens,
            finish_reason=choice.get("finish_reason") or "unknown",
            weight_version=answer["weight_version"],
        )
        for choice, text, num_tokens in zip(choices, texts, tokens, strict=True)
    ]
