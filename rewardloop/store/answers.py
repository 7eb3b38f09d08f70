"""What is sampled and judged in a roll-out, written for many prompts at once.

Each function is a few statements however many prompts it serves: a worker at the rate of a node
of GPUs has no time for a transaction per answer. Rows go to Postgres as one JSON document, which
is one parameter of a statement whose text never changes.

Responses are stored under the fencing token of their prompt's lease: a lease that was taken back
stores nothing. Judgements need no token: they hang on stored answers, and their unique keys keep
the first that came. Neither is stored once the iteration has stopped: another run's version may
answer by then.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.records import Sample, WrittenJudgement
from rewardloop.store.models import Judgement, Response
from rewardloop.store.rollouts import LeasedPrompt
from rewardloop.texts import storable


@dataclass(frozen=True, slots=True)
class StoredResponse:
    response_id: int
    text: str
    missing_judgements: tuple[int, ...]
    """Judge indices that are not settled yet."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """New samples of one prompt, by their indices."""

    prompt: LeasedPrompt
    samples: Sequence[tuple[int, Sample]]


@dataclass(frozen=True, slots=True)
class Judged:
    """New judgements of one response, by their indices."""

    response_id: int
    judgements: Sequence[tuple[int, WrittenJudgement]]


Stored = dict[int, StoredResponse]
"""One prompt's responses by sample index."""

_RUNS = "EXISTS (SELECT FROM iterations i WHERE i.id = :iteration_id AND i.state = 'running')"

_HELD = text(
    f"""
    SELECT p.prompt_id
    FROM iteration_prompts p
    JOIN unnest(CAST(:prompt_ids AS bigint[]), CAST(:tokens AS bigint[]))
        AS lease(prompt_id, token)
        ON lease.prompt_id = p.prompt_id AND lease.token = p.lease_token
    WHERE p.iteration_id = :iteration_id AND p.state = 'leased' AND {_RUNS}
    ORDER BY p.prompt_id
    FOR UPDATE OF p
    """
)

_ADD_RESPONSES = text(
    """
    INSERT INTO responses (iteration_id, prompt_id, sample_index, text, sampling, prompt_tokens,
        completion_tokens, finish_reason, weight_version)
    SELECT :iteration_id, r.prompt_id, r.sample_index, r.text, CAST(:sampling AS jsonb),
        r.prompt_tokens, r.completion_tokens, r.finish_reason, r.weight_version
    FROM json_to_recordset(CAST(:rows AS json)) AS r(prompt_id bigint, sample_index integer,
        text text, prompt_tokens integer, completion_tokens integer, finish_reason text,
        weight_version text)
    ON CONFLICT DO NOTHING
    RETURNING id, prompt_id, sample_index
    """
)

_ADD_JUDGEMENTS = text(
    f"""
    INSERT INTO judgements (response_id, judge_index, raw_text, score, reason, mode,
        rubric_version, judge_version, nonce, unscored_before, distribution, prompt_tokens,
        completion_tokens)
    SELECT j.*
    FROM json_to_recordset(CAST(:rows AS json)) AS j(response_id bigint, judge_index integer,
        raw_text text, score double precision, reason text, mode text, rubric_version text,
        judge_version text, nonce text, unscored_before text[], distribution jsonb,
        prompt_tokens integer, completion_tokens integer)
    WHERE {_RUNS}
    ON CONFLICT DO NOTHING
    """
)


async def hold(
    session: AsyncSession, iteration_id: UUID, prompts: Sequence[LeasedPrompt]
) -> set[int]:
    """Ids of the prompts whose lease still holds while the iteration runs. Until the transaction
    ends, nobody takes these leases back."""
    if not prompts:
        return set()
    found = await session.scalars(
        _HELD,
        {
            "iteration_id": iteration_id,
            "prompt_ids": [prompt.prompt_id for prompt in prompts],
            "tokens": [prompt.token for prompt in prompts],
        },
    )
    return set(found)


async def add_responses(
    session: AsyncSession,
    iteration_id: UUID,
    sampled: Sequence[Sampled],
    sampling: Mapping[str, Any],
    num_judgements: int,
) -> dict[int, Stored]:
    """Store samples under their indices; one that is there already stays as it is.

    `sampled` are prompts whose leases the caller holds (`hold`). Returns what is stored under
    the indices that were given, by prompt.
    """
    if not sampled:
        return {}
    rows = [row for each in sampled for row in _response_rows(each)]
    added = await session.execute(
        _ADD_RESPONSES,
        {
            "iteration_id": iteration_id,
            "sampling": json.dumps(sampling),
            "rows": json.dumps(rows, ensure_ascii=False),
        },
    )
    ids = {(prompt_id, index): response_id for response_id, prompt_id, index in added}
    found: defaultdict[int, Stored] = defaultdict(dict)
    missing = tuple(range(num_judgements))
    for row in rows:
        prompt_id, index = row["prompt_id"], row["sample_index"]
        if response_id := ids.get((prompt_id, index)):
            found[prompt_id][index] = StoredResponse(response_id, row["text"], missing)
    known = {row["prompt_id"] for row in rows if (row["prompt_id"], row["sample_index"]) not in ids}
    return {**found, **await stored(session, iteration_id, known, num_judgements)}


def _response_rows(sampled: Sampled) -> Iterable[dict[str, Any]]:
    for index, sample in sampled.samples:
        yield {
            "prompt_id": sampled.prompt.prompt_id,
            "sample_index": index,
            "text": storable(sample.text),
            "prompt_tokens": sample.prompt_tokens,
            "completion_tokens": sample.completion_tokens,
            "finish_reason": sample.finish_reason,
            "weight_version": sample.weight_version,
        }


async def stored(
    session: AsyncSession, iteration_id: UUID, prompt_ids: Iterable[int], num_judgements: int
) -> dict[int, Stored]:
    """The stored responses of these prompts, by prompt."""
    wanted = list(prompt_ids)
    if not wanted:
        return {}
    rows = await session.execute(
        select(
            Response.prompt_id,
            Response.id,
            Response.sample_index,
            Response.text,
            func.array_remove(func.array_agg(Judgement.judge_index), None),
        )
        .outerjoin(Judgement, Judgement.response_id == Response.id)
        .where(Response.iteration_id == iteration_id, Response.prompt_id.in_(wanted))
        .group_by(Response.id)
    )
    found: defaultdict[int, Stored] = defaultdict(dict)
    for prompt_id, response_id, index, answer, settled in rows:
        missing = tuple(sorted(set(range(num_judgements)) - set(settled)))
        found[prompt_id][index] = StoredResponse(response_id, answer, missing)
    return dict(found)


async def add_judgements(
    session: AsyncSession, iteration_id: UUID, judged: Sequence[Judged]
) -> None:
    """Store judgements of the iteration's responses; one that is there already stays."""
    rows = [row for each in judged for row in _judgement_rows(each)]
    if rows:
        document = json.dumps(rows, ensure_ascii=False)
        await session.execute(_ADD_JUDGEMENTS, {"iteration_id": iteration_id, "rows": document})


def _judgement_rows(judged: Judged) -> Iterable[dict[str, Any]]:
    for index, judgement in judged.judgements:
        yield {
            "response_id": judged.response_id,
            "judge_index": index,
            "raw_text": storable(judgement.raw_text),
            "score": judgement.verdict.score,
            "reason": judgement.verdict.reason,
            "mode": judgement.mode,
            "rubric_version": judgement.rubric_version,
            "judge_version": judgement.judge_version,
            "nonce": judgement.nonce,
            "unscored_before": judgement.unscored_before,
            "distribution": judgement.distribution,
            "prompt_tokens": judgement.prompt_tokens,
            "completion_tokens": judgement.completion_tokens,
        }
