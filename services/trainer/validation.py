"""Early stopping: a check's answers against those of the check before, pairwise, in both
orders (Yuan et al., section 3.1.2)."""

import asyncio
from collections import Counter
from typing import Any

from rewardloop.clients.judge import JudgeClient
from rewardloop.config import EarlyStopping, Settings
from rewardloop.errors import TrainingFailed
from rewardloop.method.head_to_head import ComparedPrompt, Judged, compared, head_to_head
from rewardloop.records import Message

MAX_IN_FLIGHT = 32


class Validation:
    """Remembers the answers of the last check that won."""

    def __init__(self, settings: Settings, prompts: list[list[Message]], how: EarlyStopping):
        self._settings = settings
        self._prompts = prompts
        self._how = how
        self._unread: Counter[str] = Counter()
        """Comparisons of the newest check without a preference, by reason."""
        self._best: list[str] | None = None

    async def answer(self, check: dict[str, Any]) -> dict[str, Any]:
        """Whether training goes on after this check's `answers`, beside the check's metrics.

        They are compared with `against`, the answers that the child kept; where it does not
        name them, with those of the last check that won.

        Raises:
            TrainingFailed: no prompt's two comparisons could both be read, so that nobody
                knows which answers are better.
        """
        new: list[str] = check["answers"]
        # A child that goes on from a saved state brings what it kept; one that begins, nothing.
        self._best = check.get("against", self._best if check["step"] else None)
        if self._best is None:
            self._best = new
            return {"go_on": True}
        found = head_to_head(await self._compare(new, self._best))
        if found.win_rate is None:
            raise self._all_unread(check["step"])
        go_on = found.num_wins > found.num_losses
        if go_on:
            self._best = new
        return {
            "go_on": go_on,
            "validation_win_rate": found.win_rate,
            "validation_loss_rate": found.loss_rate,
        }

    def _all_unread(self, step: int) -> TrainingFailed:
        told = ", ".join(f"{num} {reason}" for reason, num in self._unread.items())
        return TrainingFailed(
            f"the early-stopping check at step {step} decided nothing: of none of its "
            f"{len(self._prompts)} prompts could both comparisons be read ({told}). Set "
            "training.early_stopping.mode to 'constrained', raise its judge_max_tokens where "
            "they are truncated, or give the trainer a judge that can compare "
            "(REWARDLOOP_EVALUATION_JUDGE_URL)"
        )

    async def _compare(self, new: list[str], old: list[str]) -> list[ComparedPrompt]:
        self._unread.clear()
        url = self._settings.evaluation_judge_url or self._settings.judge_url
        lanes = asyncio.Semaphore(MAX_IN_FLIGHT)
        async with JudgeClient(url, self._settings.api_key.get_secret_value()) as judge:

            async def preferred(prompt: list[Message], first: str, second: str) -> Judged:
                async with lanes:
                    written = await judge.compare(
                        prompt,
                        first,
                        second,
                        mode=self._how.mode,
                        max_tokens=self._how.judge_max_tokens,
                    )
                if written.reason is not None:
                    self._unread[written.reason] += 1
                return written.preference, written.probability

            async def compare(prompt: list[Message], a: str, b: str) -> ComparedPrompt:
                a_first, b_first = await asyncio.gather(
                    preferred(prompt, a, b), preferred(prompt, b, a)
                )
                return compared(a_first, b_first, length_a=len(a), length_b=len(b))

            triples = zip(self._prompts, new, old, strict=True)
            return await asyncio.gather(*(compare(*triple) for triple in triples))
