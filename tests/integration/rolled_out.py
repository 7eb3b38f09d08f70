"""What a roll-out of six prompts has stored."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from services.worker.writing import Writer

PROMPTS = [f"question {number}" for number in range(6)]


async def everything(world: Any) -> tuple[list[Any], list[Any], list[Any]]:
    return (
        await world.rows("SELECT * FROM responses ORDER BY id"),
        await world.rows("SELECT * FROM judgements ORDER BY id"),
        await world.rows("SELECT prompt_id, state, reason FROM iteration_prompts ORDER BY 1"),
    )


async def assert_complete(world: Any, num_prompts: int = len(PROMPTS)) -> None:
    """4 responses to each prompt and 3 judgements of each response; nothing twice."""
    responses = await world.rows("SELECT prompt_id, sample_index FROM responses ORDER BY 1, 2")
    by_prompt = Counter(row["prompt_id"] for row in responses)
    assert list(by_prompt.values()) == [4] * num_prompts
    assert [row["sample_index"] for row in responses] == [0, 1, 2, 3] * num_prompts
    judged = await world.rows(
        "SELECT array_agg(judge_index ORDER BY judge_index) AS indices FROM responses r"
        " LEFT JOIN judgements j ON j.response_id = r.id GROUP BY r.id"
    )
    assert [row["indices"] for row in judged] == [[0, 1, 2]] * (4 * num_prompts)


@asynccontextmanager
async def writing(world: Any, iteration_id: UUID) -> AsyncIterator[Writer]:
    """A writer as a roll-out task has one, of an iteration with 3 judgements a response."""
    writer = Writer(world.store, iteration_id, {}, 3)
    async with writer.working():
        yield writer
