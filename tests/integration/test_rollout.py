"""The roll-out against the stub engine behind the real gate, and the real judge."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.embedded.process import Process, accepts
from rewardloop.errors import RewardloopError, UpstreamMismatch, UpstreamUnavailable
from rewardloop.records import Phase, Sample
from rewardloop.store import answers, lost_leases, rollouts
from rewardloop.store.answers import Sampled
from services.generator.stub_engine import Faults
from services.worker import phase, rollout
from tests.integration.rolled_out import PROMPTS, assert_complete, everything, writing


@pytest.fixture
async def iteration_id(world: Any) -> UUID:
    """An iteration in its roll-out, with six prompts; no service runs yet."""
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run()
    await world.in_rollout(made)
    return made


async def test_each_prompt_gets_4_responses_and_each_response_3_judgements(
    world: Any, iteration_id: UUID
) -> None:
    engine = world.serve()
    await world.roll_out(iteration_id)
    await assert_complete(world)
    responses, judgements, asked = await everything(world)
    assert {row["weight_version"] for row in responses} == {"base"}
    assert all(row["text"].startswith("[base] ") for row in responses)
    assert {row["judge_version"] for row in judgements} == {"base"}
    assert all(
        row["raw_text"].endswith(f"Score {row['nonce']}: {row['score']:.0f}") for row in judgements
    )
    assert {row["state"] for row in asked} == {"done"}
    assert engine.num_requests == 6 + 24  # one for each prompt, one for each response
    # What is charged to the samples adds up to what the engine said.
    num_words = sum(len(row["text"].split()) for row in responses)
    assert sum(row["completion_tokens"] for row in responses) == num_words


async def test_running_it_twice_changes_nothing(world: Any, iteration_id: UUID) -> None:
    engine = world.serve()
    await world.roll_out(iteration_id)
    before, num_requests = await everything(world), engine.num_requests
    await world.roll_out(iteration_id)
    assert await everything(world) == before
    assert engine.num_requests == num_requests


async def test_a_complete_rollout_sends_for_the_controller(world: Any, iteration_id: UUID) -> None:
    world.serve()
    world.broker.flushall()
    await world.roll_out(iteration_id)
    assert world.messages("control") == 2  # the queued iteration's, and this one
    assert world.messages("rollout") == 0


async def test_it_goes_on_from_partial_results(world: Any, iteration_id: UUID) -> None:
    """Responses and judgements that an earlier attempt stored are kept, not made again."""
    kept = Sample("kept from before", 3, 3, "stop", "base")
    async with world.store.transaction() as session:
        leased = await rollouts.lease(session, iteration_id, "earlier", 2, 60)
        sampled = [Sampled(prompt, [(0, kept), (2, kept)]) for prompt in leased]
        await answers.add_responses(session, iteration_id, sampled, {}, 3)
        await rollouts.release(session, iteration_id, "earlier")
    engine = world.serve()
    await world.roll_out(iteration_id)
    await assert_complete(world)
    texts = await world.rows(
        "SELECT sample_index, text FROM responses WHERE prompt_id = :p ORDER BY 1",
        p=leased[0].prompt_id,
    )
    assert [row["text"] == kept.text for row in texts] == [True, False, True, False]
    # Now one judgement of one response is lost, and only that one is asked for.
    await world.rows("DELETE FROM judgements WHERE judge_index = 1 AND response_id = 1 RETURNING 1")
    await world.rows("UPDATE iteration_prompts SET state = 'pending' RETURNING 1")
    num_requests = engine.num_requests
    await world.roll_out(iteration_id)
    await assert_complete(world)
    assert engine.num_requests == num_requests + 1


async def test_a_prompt_that_is_too_long_is_rejected_and_the_rest_goes_on(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("short", "word " * 400, "short too")
    (made,) = await world.new_run()
    await world.in_rollout(made)
    world.serve(max_model_len=350)  # the rubric has about 230 words
    await world.roll_out(made)
    await assert_complete(world, num_prompts=2)
    _, _, asked = await everything(world)
    assert [row["state"] for row in asked] == ["done", "rejected", "done"]
    assert "maximum context length is 350" in asked[1]["reason"]
    events = await world.rows("SELECT payload FROM events WHERE kind = 'prompt.rejected'")
    assert events[0]["payload"]["prompt_id"] == 2
    async with world.store.transaction() as session:
        assert await rollouts.is_complete(session, made)
    (progress,) = await world.rows("SELECT * FROM iteration_progress")
    assert (progress["prompts"], progress["responses_expected"], progress["responses"]) == (3, 8, 8)
    assert (progress["judgements_expected"], progress["judgements"]) == (24, 24)


async def test_a_nul_in_a_text_is_stored_visibly(world: Any, iteration_id: UUID) -> None:
    world.serve(Faults(writes_nul=True))
    await world.roll_out(iteration_id)
    await assert_complete(world)
    responses, judgements, _ = await everything(world)
    assert all("\N{SYMBOL FOR NULL}" in row["text"] for row in responses)
    assert all("\N{SYMBOL FOR NULL}" in row["raw_text"] for row in judgements)


async def test_two_tasks_share_the_prompts(world: Any) -> None:
    await world.with_base()
    await world.add_prompts(*(f"question {number}" for number in range(16)))
    (made,) = await world.new_run(rollout={"num_tasks": 2, "max_prompts_in_flight": 2})
    await world.in_rollout(made)
    engine = world.serve(Faults(latency_seconds=0.02))
    await asyncio.gather(world.roll_out(made), world.roll_out(made))
    await assert_complete(world, num_prompts=16)
    assert engine.num_requests == 16 + 64  # no prompt was sampled twice
    tokens = await world.rows("SELECT lease_token FROM iteration_prompts")
    assert [row["lease_token"] for row in tokens] == [1] * 16


async def test_transient_errors_of_the_engine_are_tried_again(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.clients.generator.RETRY_SECONDS", 20)
    monkeypatch.setattr("rewardloop.clients.judge.RETRY_SECONDS", 20)
    world.serve(Faults(error_rate=0.1))
    await world.roll_out(iteration_id)
    await assert_complete(world)


async def test_an_engine_that_dies_loses_nothing(world: Any, tmp_path: Path) -> None:
    """What was stored stays, the leases are given back, and a new engine finishes the rest."""
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    # One prompt has 5 requests. With two in flight, 12 answers are more than both prompts'
    # samples and judgements: one prompt at least is stored whole before the engine dies.
    (iteration_id,) = await world.new_run(rollout={"max_prompts_in_flight": 2})
    await world.in_rollout(iteration_id)
    port = int(world.settings.generator_urls[0].rpartition(":")[2])
    command = [sys.executable, "-m", "services.generator.stub_engine", "--port", str(port)]
    engine = Process("stub", [*command, "--die-after=12"], dict(os.environ), tmp_path / "log")
    try:
        await engine.wait_until(lambda: accepts(port), timeout_seconds=30)
        world.serve_judge()
        with pytest.raises(UpstreamUnavailable):
            await world.roll_out(iteration_id)
    finally:
        engine.stop()
    _, judgements, asked = await everything(world)
    assert judgements
    assert {row["state"] for row in asked} <= {"pending", "done"}
    kept = {row["id"] for row in judgements}
    world.serve_generator()
    await world.roll_out(iteration_id)
    await assert_complete(world)
    assert kept <= {row["id"] for row in await world.rows("SELECT id FROM judgements")}


async def test_a_task_surfaces_one_error_that_its_shell_understands(
    world: Any, iteration_id: UUID
) -> None:
    """tasks.shell catches RewardloopError; an ExceptionGroup would pass it by."""
    world.serve_generator()  # and no judge
    with pytest.raises(UpstreamUnavailable):
        await world.roll_out(iteration_id)
    _, judgements, asked = await everything(world)
    assert judgements == []
    assert {row["state"] for row in asked} == {"pending"}


async def test_a_task_that_finishes_prompts_and_fails_stands_not_still(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator goes away after some prompts are done, in each task."""
    with pytest.raises(UpstreamUnavailable):
        await world.roll_out(iteration_id)
    first = (await world.iteration(iteration_id)).failing_since
    world.serve()
    sample = GeneratorClient.sample

    async def but_one(self: GeneratorClient, messages: Any, *args: Any, **named: Any) -> Any:
        if messages[0]["content"] in PROMPTS[:-1]:
            return await sample(self, messages, *args, **named)
        while not await world.rows("SELECT 1 FROM iteration_prompts WHERE state = 'done'"):
            await asyncio.sleep(0.01)
        raise UpstreamUnavailable("this replica is away")

    monkeypatch.setattr(GeneratorClient, "sample", but_one)
    with pytest.raises(UpstreamUnavailable, match="this replica is away"):
        await world.roll_out(iteration_id)
    assert (await world.iteration(iteration_id)).failing_since > first


async def test_a_task_leases_no_more_than_it_asks_for(world: Any, iteration_id: UUID) -> None:
    async with world.store.transaction() as session:
        first = await rollouts.lease(session, iteration_id, "first", 1, 60)
        second = await rollouts.lease(session, iteration_id, "second", 2, 60)
    assert [prompt.prompt_id for prompt in first] == [1]
    assert [prompt.prompt_id for prompt in second] == [2, 3]
    assert await world.value("SELECT count(*) FROM iteration_prompts WHERE state = 'pending'") == 3


async def test_a_stale_lease_token_changes_nothing(world: Any, iteration_id: UUID) -> None:
    async with world.store.transaction() as session:
        slow = (await rollouts.lease(session, iteration_id, "slow", 6, -1))[0]
        assert await lost_leases.take_back_expired(session) == 6
    async with world.store.transaction() as session:
        other = (await rollouts.lease(session, iteration_id, "other", 6, 60))[0]
    assert (other.prompt_id, other.token) == (slow.prompt_id, slow.token + 1)
    async with writing(world, iteration_id) as writer:
        assert not await writer.finish(slow)
    async with world.store.transaction() as session:
        await rollouts.reject(session, iteration_id, slow, "late")
        await rollouts.renew(session, iteration_id, "slow", 600)
        await rollouts.release(session, iteration_id, "slow")
    (row,) = await world.rows(
        "SELECT state, lease_owner, lease_token, reason FROM iteration_prompts"
        " WHERE prompt_id = :p",
        p=slow.prompt_id,
    )
    assert row == {"state": "leased", "lease_owner": "other", "lease_token": 2, "reason": None}
    assert await world.rows("SELECT * FROM events WHERE kind = 'prompt.rejected'") == []


async def test_a_late_task_stores_no_responses(world: Any, iteration_id: UUID) -> None:
    """Every write names the fencing token, says the store."""
    sample = Sample("late", 1, 1, "stop", "base")
    async with world.store.transaction() as session:
        slow = (await rollouts.lease(session, iteration_id, "slow", 6, -1))[0]
        assert await lost_leases.take_back_expired(session) == 6
        await rollouts.lease(session, iteration_id, "other", 6, 60)
    async with writing(world, iteration_id) as writer:
        assert await writer.samples(slow, [(0, sample)]) is None
    assert await world.rows("SELECT * FROM responses") == []


async def test_a_live_lease_is_renewed_and_an_expired_one_taken_back(
    world: Any, iteration_id: UUID
) -> None:
    async with world.store.transaction() as session:
        await rollouts.lease(session, iteration_id, "dead", 2, 0.01)
        await rollouts.lease(session, iteration_id, "alive", 2, 0.01)
    async with world.store.transaction() as session:
        await rollouts.renew(session, iteration_id, "alive", 60)
    await asyncio.sleep(0.02)
    async with world.store.transaction() as session:
        assert await lost_leases.take_back_expired(session) == 2
    left = await world.rows(
        "SELECT lease_owner, lease_expires_at - now() AS time FROM iteration_prompts"
        " WHERE state = 'leased'"
    )
    assert [row["lease_owner"] for row in left] == ["alive", "alive"]
    assert all(row["time"] > timedelta(seconds=50) for row in left)


async def test_a_task_keeps_its_leases_while_it_works(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "LEASE_SECONDS", 4.0)
    monkeypatch.setattr(rollout, "RENEW_SECONDS", 0.2)
    world.serve(Faults(latency_seconds=2.5))  # sample and judge: longer than a lease
    working = asyncio.create_task(world.roll_out(iteration_id))
    num_taken_back = 0
    while not working.done():
        async with world.store.transaction() as session:
            num_taken_back += await lost_leases.take_back_expired(session)
        await asyncio.sleep(0.05)
    await working
    assert num_taken_back == 0
    await assert_complete(world)


async def test_a_task_whose_time_is_up_sends_for_a_successor(
    world: Any, iteration_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "WORK_SECONDS", -1)
    world.serve()
    await world.roll_out(iteration_id)
    assert world.messages("rollout") == 1
    assert await world.rows("SELECT * FROM responses") == []


async def test_nothing_is_sampled_outside_the_phase_rollout(world: Any, iteration_id: UUID) -> None:
    engine = world.serve()
    await world.rows("UPDATE iterations SET phase = 'pairing' RETURNING 1")
    await world.roll_out(iteration_id)
    assert engine.num_requests == 0


async def test_a_request_for_the_wrong_key_is_refused(world: Any, iteration_id: UUID) -> None:
    engine = world.serve()
    url = world.settings.generator_urls[0]
    found = await phase.running_in(world.store, iteration_id, Phase.ROLLOUT)
    assert found is not None
    _, config = found
    async with GeneratorClient([url], "not the key") as client:
        with pytest.raises(RewardloopError, match="key"):
            await client.sample([{"role": "user", "content": "x"}], config.sampling, 1)
    assert engine.num_requests == 0


async def test_a_wrong_model_of_the_judge_is_told_and_never_a_verdict(
    world: Any, iteration_id: UUID
) -> None:
    world.settings = world.settings.model_copy(update={"judge_upstream_model": "big-jugde"})
    world.serve()
    with pytest.raises(UpstreamMismatch, match=r"answers by one version.*and not by 'big-jugde'"):
        await world.roll_out(iteration_id)
    assert await world.rows("SELECT 1 FROM judgements") == []
    (iteration,) = await world.rows("SELECT state, error_kind FROM iterations")
    assert iteration == {"state": "failed", "error_kind": "unknown-model"}
