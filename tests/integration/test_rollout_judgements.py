"""What a roll-out makes of judgements that are refused, cut, or without a score."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.records import Message, PromptRecord
from rewardloop.store import prompts, rollouts
from services.generator.stub_engine import Faults
from tests.integration.rolled_out import PROMPTS, assert_complete, everything


@pytest.fixture
async def iteration_id(world: Any) -> UUID:
    """An iteration in its roll-out, with six prompts; no service runs yet."""
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run()
    await world.in_rollout(made)
    return made


async def test_a_prompt_that_the_judge_refuses_stops_nobody(world: Any) -> None:
    """It holds no user's turn: the judge calls it invalid, however often it is asked."""
    await world.with_base()
    await world.add_prompts("good")
    system: Message = {"role": "system", "content": "You are terse."}
    async with world.store.transaction() as session:
        await prompts.add(session, "seed", [PromptRecord((system,), None, "test")])
    (made,) = await world.new_run()
    await world.in_rollout(made)
    world.serve()
    await world.roll_out(made)
    async with world.store.transaction() as session:
        assert await rollouts.is_complete(session, made)
    unscored = await world.rows(
        "SELECT DISTINCT prompt_id, reason FROM judgements j JOIN responses r"
        " ON r.id = j.response_id WHERE score IS NULL"
    )
    assert unscored == [{"prompt_id": 2, "reason": "refused"}]


async def test_a_response_that_the_judge_cannot_read_is_stored_without_a_score(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("word " * 60)
    (made,) = await world.new_run()
    await world.in_rollout(made)
    world.serve(max_model_len=150)  # room for the prompt, none for the rubric around it
    await world.roll_out(made)
    await assert_complete(world, num_prompts=1)
    _, judgements, _ = await everything(world)
    assert {(row["score"], row["reason"]) for row in judgements} == {(None, "refused")}
    assert all("maximum context length" in row["raw_text"] for row in judgements)


async def test_judgements_without_a_score_keep_their_text(world: Any, iteration_id: UUID) -> None:
    world.serve(Faults(unscored_rate=0.5))
    await world.roll_out(iteration_id)
    await assert_complete(world)
    _, judgements, _ = await everything(world)
    unscored = [row for row in judgements if row["score"] is None]
    assert {row["reason"] for row in unscored} == {"no_score"}
    assert 0 < len(unscored) < len(judgements)
    assert all(row["raw_text"] for row in unscored)


async def test_a_judgement_without_a_score_is_asked_for_again(
    world: Any, iteration_id: UUID
) -> None:
    """The stub writes by prompt and index, so an only one that is asked for again is that of
    index 0: it has a score where the first judgement had one."""
    engine = world.serve(Faults(unscored_rate=0.5))
    await world.roll_out(iteration_id)
    _, judgements, _ = await everything(world)
    again = [row for row in judgements if row["unscored_before"]]
    assert [row["unscored_before"] for row in again] == [["no_score"]] * len(again)
    assert all(row["score"] is not None or row["unscored_before"] for row in judgements)
    assert any(row["score"] is not None for row in again)
    asked_again = {row["response_id"] for row in again}
    assert engine.num_requests == 6 + 24 + len(asked_again)
    assert {len(row["nonce"]) for row in judgements} == {4}
    nonces = {
        (row["response_id"], bool(row["unscored_before"]), row["nonce"]) for row in judgements
    }
    assert len(nonces) == len({(each[0], each[1]) for each in nonces})  # one a call
    assert len({row["nonce"] for row in judgements}) > 20  # and not one for all


async def test_a_response_has_a_mean_where_most_of_its_judgements_have_a_score(
    world: Any, iteration_id: UUID
) -> None:
    world.serve(Faults(unscored_rate=0.6))
    await world.roll_out(iteration_id)
    scores = await world.rows(
        "SELECT num_judgements, num_scored, score_mean FROM response_scores ORDER BY response_id"
    )
    assert {row["num_scored"] for row in scores} >= {1, 2}
    for row in scores:
        assert row["num_judgements"] == 3
        assert (row["score_mean"] is not None) == (row["num_scored"] >= 2)


async def test_a_constrained_judge_always_gives_a_score(world: Any) -> None:
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run(judging={"mode": "constrained"})
    await world.in_rollout(made)
    world.serve(Faults(unscored_rate=1.0))
    await world.roll_out(made)
    await assert_complete(world)
    _, judgements, _ = await everything(world)
    assert {row["mode"] for row in judgements} == {"constrained"}
    assert all(row["score"] is not None for row in judgements)
