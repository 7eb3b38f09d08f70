"""What many prompts bring is written together, and fails alone."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import JudgementMode, Sample, UnscoredReason, Verdict, WrittenJudgement
from rewardloop.store import answers, lost_leases, rollouts
from rewardloop.store.rollouts import LeasedPrompt
from services.worker import writing as writing_module
from services.worker.writing import Writer
from tests.integration.rolled_out import PROMPTS, everything, writing

TWO = [(0, Sample("first", 3, 5, "stop", "base")), (1, Sample("a \x00 NUL", 3, 6, "stop", "base"))]


def judged(score: float | None, **fields: Any) -> WrittenJudgement:
    reason = UnscoredReason.NO_SCORE if score is None else None
    made = {
        "raw_text": "text",
        "verdict": Verdict(score, reason),
        "rubric_version": "r",
        "judge_version": "base",
        "mode": JudgementMode.FREE,
        "nonce": "abcd",
        "prompt_tokens": 11,
        "completion_tokens": 2,
    }
    return WrittenJudgement(**{**made, **fields})


@pytest.fixture
async def iteration_id(world: Any) -> UUID:
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run()
    await world.in_rollout(made)
    return made


@pytest.fixture
async def leased(world: Any, iteration_id: UUID) -> list[LeasedPrompt]:
    async with world.store.transaction() as session:
        return await rollouts.lease(session, iteration_id, "me", 6, 60)


def noting_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each transaction has, as they come."""
    sizes: list[int] = []
    store = Writer._store

    async def noted(self: Writer, batch: Sequence[Any]) -> list[Any]:
        sizes.append(len(batch))
        return await store(self, batch)

    monkeypatch.setattr(Writer, "_store", noted)
    return sizes


async def states(world: Any) -> list[str]:
    rows = await world.rows("SELECT state FROM iteration_prompts ORDER BY prompt_id")
    return [row["state"] for row in rows]


async def test_what_comes_within_a_tick_is_one_transaction(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "TICK_SECONDS", 0.5)
    sizes = noting_batches(monkeypatch)
    async with writing(world, iteration_id) as writer:
        stored = await asyncio.gather(*(writer.samples(prompt, TWO) for prompt in leased))
    assert sizes == [6]
    rows, _, _ = await everything(world)
    assert [(row["sample_index"], row["text"]) for row in rows[:2]] == [
        (0, "first"),
        (1, "a \N{SYMBOL FOR NULL} NUL"),
    ]
    found = {(row["prompt_id"], row["sample_index"]): row["id"] for row in rows}
    for prompt, of_prompt in zip(leased, stored, strict=True):
        assert of_prompt is not None
        assert {i: r.response_id for i, r in of_prompt.items()} == {
            i: found[prompt.prompt_id, i] for i in (0, 1)
        }
        assert of_prompt[1].text == "a \N{SYMBOL FOR NULL} NUL"
        assert of_prompt[0].missing_judgements == (0, 1, 2)


async def test_a_prompt_whose_data_cannot_be_stored_fails_alone(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt]
) -> None:
    unknown = [(0, Sample("text", 3, 5, "stop", "a version that nobody knows"))]
    async with writing(world, iteration_id) as writer:
        found = await asyncio.gather(
            writer.samples(leased[0], TWO),
            writer.samples(leased[1], unknown),
            writer.finish(leased[2]),
            writer.samples(leased[3], TWO),
            return_exceptions=True,
        )
        assert isinstance(found[1], DBAPIError)
        assert found[2] is True
        stored = [each for each in (found[0], found[3]) if isinstance(each, dict)]
        assert [sorted(each) for each in stored] == [[0, 1], [0, 1]]
        first = stored[0][0].response_id
        ended = await asyncio.gather(
            writer.judgements(leased[0], first, [(0, judged(6.0))]),  # off the scale
            writer.judgements(leased[3], stored[1][0].response_id, [(0, judged(5.0))]),
            return_exceptions=True,
        )
    assert isinstance(ended[0], DBAPIError)
    assert ended[1] is None
    rows, judgements, _ = await everything(world)
    assert [row["prompt_id"] for row in rows] == [leased[0].prompt_id] * 2 + [
        leased[3].prompt_id
    ] * 2
    assert [row["score"] for row in judgements] == [5.0]
    assert await states(world) == ["leased", "leased", "done", "leased", "leased", "leased"]


async def test_leases_that_are_lost_decide_nothing_beside_those_that_hold(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt]
) -> None:
    await world.rows(
        "UPDATE iteration_prompts SET lease_token = lease_token + 1 WHERE prompt_id IN (2, 4)"
        " RETURNING 1"
    )
    async with writing(world, iteration_id) as writer:
        finished = await asyncio.gather(*(writer.finish(prompt) for prompt in leased[:3]))
        stored = await asyncio.gather(*(writer.samples(prompt, TWO) for prompt in leased[3:]))
    assert finished == [True, False, True]
    assert [each is not None for each in stored] == [False, True, True]
    assert await states(world) == ["done", "leased", "done", "leased", "leased", "leased"]
    rows, _, _ = await everything(world)
    assert sorted({row["prompt_id"] for row in rows}) == [5, 6]


async def test_what_is_stored_already_stays_and_is_what_the_caller_gets(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt]
) -> None:
    async with writing(world, iteration_id) as writer:
        once = await writer.samples(leased[0], TWO[:1])
        assert once is not None
        response_id = once[0].response_id
        await writer.judgements(leased[0], response_id, [(1, judged(None))])
        await writer.judgements(leased[0], response_id, [(1, judged(4.0)), (2, judged(3.0))])
        other = [(0, Sample("another", 1, 1, "stop", "base")), TWO[1]]
        again = await writer.samples(leased[0], other)
    assert again is not None
    assert (again[0].response_id, again[0].text) == (response_id, "first")
    assert again[0].missing_judgements == (0,)
    assert again[1].missing_judgements == (0, 1, 2)
    _, judgements, _ = await everything(world)
    assert [(row["judge_index"], row["score"], row["reason"]) for row in judgements] == [
        (1, None, "no_score"),
        (2, 3.0, None),
    ]


async def test_every_field_of_a_judgement_is_stored(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt]
) -> None:
    whole = judged(
        2.5,
        raw_text='two "quoted"\nlines, ünïcode \U0001f600',
        nonce=None,
        unscored_before=(UnscoredReason.NO_SCORE, UnscoredReason.TRUNCATED),
        mode=JudgementMode.CONSTRAINED,
    )
    async with writing(world, iteration_id) as writer:
        stored = await writer.samples(leased[0], TWO)
        assert stored is not None
        await writer.judgements(leased[0], stored[1].response_id, [(0, whole)])
    _, (row,), _ = await everything(world)
    del row["id"], row["created_at"]
    assert row == {
        "response_id": stored[1].response_id,
        "judge_index": 0,
        "raw_text": 'two "quoted"\nlines, ünïcode \U0001f600',
        "score": 2.5,
        "reason": None,
        "mode": "constrained",
        "rubric_version": "r",
        "judge_version": "base",
        "nonce": None,
        "unscored_before": ["no_score", "truncated"],
        "prompt_tokens": 11,
        "completion_tokens": 2,
    }


async def test_what_waits_at_the_end_is_written_although_nobody_waits_for_it(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "TICK_SECONDS", 0.2)
    async with writing(world, iteration_id) as writer:
        waiting = asyncio.create_task(writer.samples(leased[0], TWO))
        late = asyncio.create_task(writer.samples(leased[1], TWO))
        await asyncio.sleep(0.01)
        waiting.cancel()
        assert await world.rows("SELECT 1 FROM responses") == []
    assert await late is not None
    rows, _, _ = await everything(world)
    assert [row["prompt_id"] for row in rows] == [1, 1, 2, 2]


async def test_a_judgement_of_a_stopped_iteration_is_not_stored(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt]
) -> None:
    async with writing(world, iteration_id) as writer:
        stored = await writer.samples(leased[0], TWO)
        assert stored is not None
        await world.rows("UPDATE iterations SET state = 'paused' RETURNING 1")
        await writer.judgements(leased[0], stored[0].response_id, [(0, judged(4.0))])
        assert not await writer.finish(leased[1])
    _, judgements, _ = await everything(world)
    assert judgements == []


async def test_with_the_database_away_everybody_hears_of_it(
    world: Any, iteration_id: UUID, leased: list[LeasedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def away() -> Any:
        raise UpstreamUnavailable("the database does not answer")
        yield

    async with writing(world, iteration_id) as writer:
        with monkeypatch.context() as broken:
            broken.setattr(writer.store, "transaction", away)
            found = await asyncio.gather(
                *(writer.finish(prompt) for prompt in leased), return_exceptions=True
            )
        assert [type(each) for each in found] == [UpstreamUnavailable] * 6
        assert await writer.finish(leased[0])


async def test_a_lease_whose_prompt_is_being_written_is_not_taken_back(
    world: Any, iteration_id: UUID
) -> None:
    """Nor does whoever takes leases back wait for the one that writes: that could be a deadlock."""
    async with world.store.transaction() as session:
        leased = await rollouts.lease(session, iteration_id, "slow", 3, -1)
    async with world.store.transaction() as session, asyncio.timeout(60):
        assert await answers.hold(session, iteration_id, leased[:1]) == {1}
        async with world.store.transaction() as other:
            assert await lost_leases.take_back_expired(other) == 2
        await rollouts.finish(session, iteration_id, {1})
    assert await states(world) == ["done"] + ["pending"] * 5


async def test_only_prompts_that_were_leased_before_are_looked_up(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.store.transaction() as session:
        await rollouts.lease(session, iteration_id, "earlier", 2, 60)
        await rollouts.release(session, iteration_id, "earlier")
    looked_up: list[int] = []
    stored = answers.stored

    async def noted(session: Any, iteration: UUID, prompt_ids: Any, num: int) -> Any:
        looked_up.extend(prompt_ids)
        return await stored(session, iteration, prompt_ids, num)

    monkeypatch.setattr(answers, "stored", noted)
    world.serve()
    await world.roll_out(iteration_id)
    assert sorted(looked_up) == [1, 2]
