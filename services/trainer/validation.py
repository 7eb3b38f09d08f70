"""Early stopping: a check's answers against those of the check before, pairwise, in both
orders (Yuan et al., section 3.1.2)."""

import asyncio
from typing import Any

from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Settings
from rewardloop.evaluation import ComparedPrompt, head_to_head
from rewardloop.records import JudgementMode, Message, Preference

JUDGE_MAX_TOKENS = 256
MAX_IN_FLIGHT = 32


class Validation:
    """Remembers the answers of the last check that won."""

    def __init__(self, settings: Settings, prompts: list[list[Message]], mode: JudgementMode):
        self._settings = settings
        self._prompts = prompts
        self._mode = mode
        self._best: list[str] | None = None

    async def answer(self, check: dict[str, Any]) -> dict[str, Any]:
        """Whether training goes on after this check's `answers`, beside the check's metrics."""
        new: list[str] = check["answers"]
        if self._best is None:
            self._best = new
            return {"go_on": True}
        found = head_to_head(await self._compare(new, self._best))
        go_on = found.num_wins > found.num_losses
        if go_on:
            self._best = new
        return {
            "go_on": go_on,
            "validation_win_rate": found.win_rate,
            "validation_loss_rate": found.loss_rate,
        }

    async def _compare(self, new: list[str], old: list[str]) -> list[ComparedPrompt]:
        url = self._settings.evaluation_judge_url or self._settings.judge_url
        lanes = asyncio.Semaphore(MAX_IN_FLIGHT)
        async with JudgeClient(url, self._settings.api_key.get_secret_value()) as judge:

            async def preferred(
                prompt: list[Message], first: str, second: str
            ) -> Preference | None:
                async with lanes:
                    written = await judge.compare(
                        prompt, first, second, mode=self._mode, max_tokens=JUDGE_MAX_TOKENS
                    )
                return written.preference

            async def compare(prompt: list[Message], a: str, b: str) -> ComparedPrompt:
                a_first, b_first = await asyncio.gather(
                    preferred(prompt, a, b), preferred(prompt, b, a)
                )
                return ComparedPrompt(
                    a_first=a_first, b_first=b_first, length_a=len(a), length_b=len(b)
                )

            triples = zip(self._prompts, new, old, strict=True)
            return await asyncio.gather(*(compare(*triple) for triple in triples))
