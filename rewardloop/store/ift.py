"""What a bootstrap imitates (IFT), fixed when the bootstrap begins.

Imports may go on while it trains twice, first the SFT baseline and then M1; both learn from the
same examples.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import RunConfig
from rewardloop.errors import NoExamples
from rewardloop.store import contamination, ranked
from rewardloop.store.models import IftExample, Iteration, Prompt

_ROWS_PER_STATEMENT = 1000


async def examples(
    session: AsyncSession, iteration: Iteration, config: RunConfig
) -> list[dict[str, Any]]:
    """(prompt, answer) of every example: chosen at the first call, the same ever after.

    Raises:
        NoExamples: the dataset has none but for prompts that the run is measured by.
    """
    found = await _stored(session, iteration)
    if not found:
        await _choose(session, iteration, config)
        found = await _stored(session, iteration)
    return found


async def _stored(session: AsyncSession, iteration: Iteration) -> list[dict[str, Any]]:
    rows = await session.execute(
        select(Prompt.messages, IftExample.answer)
        .join(Prompt, Prompt.id == IftExample.prompt_id)
        .where(IftExample.iteration_id == iteration.id)
        .order_by(IftExample.prompt_id)
    )
    return [{"prompt": messages, "completion": answer} for messages, answer in rows]


async def _choose(session: AsyncSession, iteration: Iteration, config: RunConfig) -> None:
    assert config.bootstrap is not None
    chosen = await ranked.ift_examples(
        session,
        iteration.run_id,
        config.bootstrap,
        without=contamination.questions(iteration.run_id, config),
    )
    if not chosen:
        raise NoExamples(
            f"no prompt of the dataset {config.bootstrap.dataset!r} has an answer to imitate, "
            "apart from evaluation and held-out prompts, and rankings whose best answer is bad"
        )
    rows = [
        {"iteration_id": iteration.id, "prompt_id": prompt_id, "answer": answer}
        for prompt_id, answer in chosen
    ]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        await session.execute(insert(IftExample).values(rows[start : start + _ROWS_PER_STATEMENT]))
