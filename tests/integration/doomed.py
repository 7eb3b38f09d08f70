"""Prompts that fail each time, and how they stand."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.store import dead_prompts, pauses


def pause_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of 20 and 100 ms instead of seconds, and no waiting between retries."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr("rewardloop.clients.http.wait_exponential_jitter", lambda **_: lambda _: 0)


async def in_rollout(world: Any, *contents: str, **config: Any) -> UUID:
    await world.with_base()
    await world.add_prompts(*contents)
    (made,) = await world.new_run(prompts={"num_per_iteration": len(contents)}, **config)
    await world.in_rollout(made)
    return made  # type: ignore[no-any-return]


async def states(world: Any) -> dict[str, int]:
    rows = await world.rows("SELECT state, count(*) AS num FROM iteration_prompts GROUP BY state")
    return {row["state"]: row["num"] for row in rows}


async def dead(world: Any, iteration_id: UUID) -> list[dead_prompts.DeadPrompt]:
    async with world.store.transaction() as session:
        return await dead_prompts.page(session, iteration_id)
