"""The API's routes, for the command line."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from rewardloop.clients.http import call, connect
from rewardloop.records import PromptRecord, RankedPrompt

_PROMPTS_PER_REQUEST = 10_000
_RANKED_PER_REQUEST = 1_000


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

    async def add_prompts(self, dataset: str, prompts: Sequence[PromptRecord]) -> int:
        """Returns how many were new."""
        added = 0
        for start in range(0, len(prompts), _PROMPTS_PER_REQUEST):
            chunk = prompts[start : start + _PROMPTS_PER_REQUEST]
            rows = [
                {"messages": p.messages, "reference": p.reference, "source": p.source}
                for p in chunk
            ]
            answer = await self.post(f"/v1/datasets/{dataset}/prompts", {"prompts": rows})
            added += int(answer["added"])
        return added

    async def add_ranked(self, dataset: str, ranked: Sequence[RankedPrompt]) -> int:
        """Returns how many rankings were new."""
        added = 0
        for start in range(0, len(ranked), _RANKED_PER_REQUEST):
            rows = [
                {
                    "messages": item.prompt.messages,
                    "reference": item.prompt.reference,
                    "source": item.prompt.source,
                    "responses": [{"text": r.text, "rank": r.rank} for r in item.responses],
                }
                for item in ranked[start : start + _RANKED_PER_REQUEST]
            ]
            answer = await self.post(f"/v1/datasets/{dataset}/ranked", {"prompts": rows})
            added += int(answer["added"])
        return added

    async def pairs(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """All pairs of a run."""
        after: int | None = 0
        while after is not None:
            page = await self.get(f"/v1/runs/{run_id}/pairs", after=after, limit=1000)
            for item in page["items"]:
                yield item
            after = page["next_after"]
