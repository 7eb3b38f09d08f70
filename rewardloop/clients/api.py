"""The API's routes, for the command line."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

from rewardloop.clients.http import call, connect
from rewardloop.records import PromptRecord, RankedPrompt, RankedText

_PROMPTS_PER_REQUEST = 10_000
_RANKED_PER_REQUEST = 1_000
_BYTES_PER_REQUEST = 16 * 2**20
"""The API takes 64 MiB; a request of a quarter is answered well within the timeout."""

Imported = dict[str, Any]
"""What an import's route answers: `added`, `known`, and more counts, by name or nested."""


class ApiClient:
    def __init__(self, url: str, key: str) -> None:
        self._client = connect(url, key, timeout_seconds=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **params: Any) -> Any:
        return await call(self._client, "GET", path, params=params, retry_seconds=10)

    async def post(self, path: str, body: Any, **params: Any) -> Any:
        return await call(self._client, "POST", path, json=body, params=params)

    async def delete(self, path: str) -> Any:
        return await call(self._client, "DELETE", path)

    async def add_prompts(self, dataset: str, prompts: Sequence[PromptRecord]) -> Imported:
        """Returns what became of them: the route's counts, summed over the requests."""
        rows = [_prompt_row(prompt) for prompt in prompts]
        return await self._add(f"/v1/datasets/{dataset}/prompts", rows, _PROMPTS_PER_REQUEST)

    async def add_ranked(self, dataset: str, ranked: Sequence[RankedPrompt]) -> Imported:
        """Returns what became of them, as `add_prompts`."""
        rows = [
            {
                **_prompt_row(item.prompt),
                "responses": [_response_row(response) for response in item.responses],
            }
            for item in ranked
        ]
        return await self._add(f"/v1/datasets/{dataset}/ranked", rows, _RANKED_PER_REQUEST)

    async def _add(self, path: str, rows: Sequence[Any], per_request: int) -> Imported:
        total: Imported = {"added": 0, "known": 0}
        for batch in _batches(rows, per_request):
            total = _sum(total, await self.post(path, {"prompts": batch}))
        return total

    async def compare(self, dataset: str, rows: Sequence[Any]) -> dict[str, Any]:
        """How prompts stand to what is stored, and how long they are; stores nothing."""
        total: dict[str, Any] = {}
        for batch in _batches(rows, _RANKED_PER_REQUEST):
            answer = await self.post(f"/v1/datasets/{dataset}/compare", {"prompts": batch})
            told = {name: answer.pop(name) for name in ("unit", "version", "context")}
            total = {**_sum(total, answer), **told}
        return total

    async def pairs(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """All pairs of a run."""
        after: int | None = 0
        while after is not None:
            page = await self.get(f"/v1/runs/{run_id}/pairs", after=after, limit=1000)
            for item in page["items"]:
                yield item
            after = page["next_after"]


def _batches(rows: Sequence[Any], per_request: int) -> Iterator[list[Any]]:
    """So many rows at a time, fewer where they are long: a request's body has a bound."""
    batch: list[Any] = []
    size = 0
    for row in rows:
        row_size = len(json.dumps(row))
        if batch and (len(batch) == per_request or size + row_size > _BYTES_PER_REQUEST):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield batch


def _prompt_row(prompt: PromptRecord) -> dict[str, Any]:
    return {"messages": prompt.messages, "reference": prompt.reference, "source": prompt.source}


def _response_row(response: RankedText) -> dict[str, Any]:
    row: dict[str, Any] = {"text": response.text, "rank": response.rank}
    return row if response.imitate else {**row, "imitate": False}


def _sum(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Counts are added and lists joined, at any depth; of texts the first one stays."""
    return {**total, **{name: _plus(total.get(name), value) for name, value in more.items()}}


def _plus(known: Any, value: Any) -> Any:
    if known is None:
        return value
    if isinstance(value, dict):
        return _sum(known, value)
    return known if isinstance(value, str) else known + value
