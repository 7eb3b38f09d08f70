"""Eight evaluation prompts and two versions that are to be compared."""

from typing import Any
from uuid import UUID

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.store import evaluations
from rewardloop.store.models import Evaluation

QUESTIONS = [f"evaluation question {number}" for number in range(8)]


async def with_two_versions(world: Any) -> Any:
    """Versions "base" and "new", and 8 evaluation prompts; no service runs yet."""
    await world.with_base()
    await world.publish("new", parent="base")
    await world.add_prompts("one", "two", "three")
    await world.add_prompts(*QUESTIONS, dataset="evaluation")
    return world


async def asked_for(world: Any, a: str = "new", b: str = "base", **config: Any) -> UUID:
    async with world.store.transaction() as session:
        made = await evaluations.create(session, a, b, EvaluationConfig(**config))
        return made.id


async def stored(world: Any, evaluation_id: UUID) -> Evaluation:
    async with world.store.transaction() as session:
        return await evaluations.get(session, evaluation_id)


async def num_stored(world: Any) -> tuple[int, int]:
    """Answers and comparisons."""
    return (
        await world.value("SELECT count(*) FROM evaluation_answers"),
        await world.value("SELECT count(*) FROM comparisons"),
    )
