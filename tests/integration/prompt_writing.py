"""An iteration that waits for prompts which the prompt model writes."""

from typing import Any
from uuid import UUID

from rewardloop.store.models import Iteration

HUMAN = [f"Explain {topic} to me" for topic in ("tides", "bread", "chess", "rivers", "clocks")]
SELF_INSTRUCT = {"language": None, "max_attempts_per_prompt": 5}
NUM_WRITTEN_AT_ONCE = 6 * 5
"""All that may be written is less than a batch."""
SOURCE = {"num_per_iteration": 6, "self_instruct": SELF_INSTRUCT}


async def with_human_prompts(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts(*HUMAN)
    return world


def stands(iteration: Iteration) -> tuple[str, str]:
    return iteration.state, iteration.phase


async def in_prompts(world: Any, count: int = 1, **source: Any) -> list[UUID]:
    """The ids of a run's iterations, the first of which waits for its prompts."""
    made = await world.new_run(count=count, prompts={**SOURCE, **source})
    assert stands(await world.advance(made[0])) == ("running", "prompts")
    return made


async def written(world: Any, iteration_id: UUID) -> list[dict[str, Any]]:
    return await world.rows(
        "SELECT attempt, text, prompt_id, reason, detail FROM candidate_prompts"
        " WHERE iteration_id = :i ORDER BY attempt",
        i=iteration_id,
    )


async def accepted(world: Any, iteration_id: UUID) -> list[str]:
    return [row["text"] for row in await written(world, iteration_id) if row["prompt_id"]]
