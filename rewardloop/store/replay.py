"""A run over another run's answers: the same responses and judgements, another policy or loss.

What the other run held out to measure its judges by, this one holds out too.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.config import RunConfig, parse_run_config, stored_run_config
from rewardloop.errors import Conflict, InvalidInput, NotFound
from rewardloop.records import Phase
from rewardloop.store.models import Iteration, Run

_AFTER_ROLLOUT = (Phase.TRAIN, Phase.SWAP, Phase.ASSESS, Phase.DONE)

_SPLIT = (
    "INSERT INTO ranked_splits (run_id, prompt_id, held_out, response_ids)"
    " SELECT :new, prompt_id, held_out, response_ids FROM ranked_splits WHERE run_id = :old"
)

_COPIES = (
    "INSERT INTO iteration_prompts (iteration_id, prompt_id, state, reason, num_attempts,"
    "   last_error, last_error_kind)"
    " SELECT :new, prompt_id, state, reason, num_attempts, last_error, last_error_kind"
    " FROM iteration_prompts WHERE iteration_id = :old",
    "INSERT INTO responses (iteration_id, prompt_id, sample_index, text, sampling, prompt_tokens,"
    "   completion_tokens, finish_reason, weight_version, created_at)"
    " SELECT :new, prompt_id, sample_index, text, sampling, prompt_tokens, completion_tokens,"
    "   finish_reason, weight_version, created_at FROM responses WHERE iteration_id = :old",
    "INSERT INTO judgements (response_id, judge_index, raw_text, score, reason, mode,"
    "   rubric_version, judge_version, nonce, unscored_before, distribution, prompt_tokens,"
    "   completion_tokens, created_at)"
    " SELECT n.id, j.judge_index, j.raw_text, j.score, j.reason, j.mode, j.rubric_version,"
    "   j.judge_version, j.nonce, j.unscored_before, j.distribution, j.prompt_tokens,"
    "   j.completion_tokens, j.created_at"
    " FROM judgements j JOIN responses o ON o.id = j.response_id AND o.iteration_id = :old"
    " JOIN responses n ON n.iteration_id = :new AND n.prompt_id = o.prompt_id"
    "   AND n.sample_index = o.sample_index",
)


async def resolved(session: AsyncSession, config: RunConfig) -> RunConfig:
    """The config with what the replayed run decides: base version, prompts, sampling, judging.

    Raises:
        NotFound: there is no such run.
        Conflict: its first iteration has no complete roll-out.
        InvalidInput: the config asks for a bootstrap, for another base version, or for what
            does not go with the other run's prompts.
    """
    assert config.replay is not None
    source = await _source(session, config.replay)
    run = await session.get_one(Run, source.run_id)
    if config.bootstrap is not None:
        raise InvalidInput("replay and bootstrap exclude each other: a replay starts at an M1")
    if config.base_version not in (None, source.base_version_id):
        raise InvalidInput(
            f"the replayed run answered with {source.base_version_id}, so base_version cannot be "
            f"{config.base_version}; leave it out"
        )
    theirs = stored_run_config(run.config)
    decided: dict[str, Any] = {
        "base_version": source.base_version_id,
        "prompts": theirs.prompts,
        "sampling": theirs.sampling,
        "judging": theirs.judging,
        # What was good enough for their pairs is for ours.
        "rollout": config.rollout.model_copy(
            update={"max_dead_share": theirs.rollout.max_dead_share}
        ),
    }
    # Checked again as a whole: their prompts may not go with our pair policy.
    return parse_run_config(config.model_copy(update=decided).model_dump(mode="json"))


async def _source(session: AsyncSession, run_id: UUID) -> Iteration:
    found = await session.scalar(
        select(Iteration).where(Iteration.run_id == run_id, Iteration.index == 1)
    )
    if found is None:
        raise NotFound(f"there is no run {run_id} with an iteration to replay")
    if found.phase not in _AFTER_ROLLOUT and "pairing" not in found.report:
        raise Conflict(f"iteration 1 of run {run_id} has no complete roll-out yet ({found.phase})")
    return found


async def copy(session: AsyncSession, run_id: UUID, iteration: Iteration) -> None:
    """Give the iteration the prompts, responses and judgements of the run's first one, and
    its run the other's held-out split."""
    source = await _source(session, run_id)
    await session.execute(text(_SPLIT), {"old": run_id, "new": iteration.run_id})
    for statement in _COPIES:
        await session.execute(text(statement), {"old": source.id, "new": iteration.id})
