"""Tasks that judge ranked answers: again, side by side, and after one that died."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rewardloop.clients.judge import JudgeClient
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store import ranked
from services.generator.stub_engine import Faults
from tests.integration.ranked_world import (
    BOOTSTRAP,
    NUM_JUDGEMENTS,
    num_judgements,
    stands,
    until_judged,
    with_ranked_prompts,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_ranked_prompts(world)


async def test_assessing_twice_changes_nothing(ready: Any) -> None:
    engine = ready.serve()
    bootstrap, _ = await ready.new_run(bootstrap=BOOTSTRAP)
    await until_judged(ready, bootstrap)
    await ready.assess(bootstrap)
    before = await ready.rows("SELECT * FROM ranked_judgements ORDER BY id")
    metrics = await ready.rows("SELECT * FROM assessments ORDER BY id")
    num_requests = engine.num_requests
    await ready.assess(bootstrap)
    assert engine.num_requests == num_requests
    assert await ready.rows("SELECT * FROM ranked_judgements ORDER BY id") == before
    assert await ready.rows("SELECT * FROM assessments ORDER BY id") == metrics


async def test_two_assessing_tasks_at_once_are_as_good_as_one(ready: Any) -> None:
    engine = ready.serve(Faults(latency_seconds=0.01))
    bootstrap, _ = await ready.new_run(bootstrap=BOOTSTRAP)
    await until_judged(ready, bootstrap)
    await asyncio.gather(*(ready.assess(bootstrap) for _ in range(3)))
    assert await num_judgements(ready) == 18 * NUM_JUDGEMENTS + 18
    assert engine.num_requests == 18 + 6
    await asyncio.gather(*(ready.advance(bootstrap) for _ in range(3)))
    await ready.advance(bootstrap)
    stages = await ready.rows("SELECT stage FROM training_jobs ORDER BY id")
    assert [row["stage"] for row in stages] == ["baseline", "model"]


def away_from(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but its call of this number and those behind it find nobody."""
    calls = iter(range(1_000_000))

    async def instead(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= call:
            raise UpstreamUnavailable("away")
        return await function(*args, **kwargs)

    return instead


@pytest.mark.parametrize(("place", "name"), [(JudgeClient, "judge"), (ranked, "add_judgements")])
async def test_an_assessing_task_that_dies_is_gone_on_with(
    ready: Any, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    """The judge goes away, or the database."""
    ready.serve()
    bootstrap, _ = await ready.new_run(
        bootstrap=BOOTSTRAP, rollout={"max_prompts_in_flight": 1}, sampling={"num_samples": 2}
    )
    await until_judged(ready, bootstrap)
    before = await ready.value(
        "UPDATE iterations SET failing_since = now()"
        " WHERE state = 'running' RETURNING failing_since"
    )
    with monkeypatch.context() as patched:
        patched.setattr(place, name, away_from(10, getattr(place, name)))
        with pytest.raises(UpstreamUnavailable):
            await ready.assess(bootstrap)
    kept = await ready.rows("SELECT * FROM ranked_judgements ORDER BY id")
    assert 8 * NUM_JUDGEMENTS <= len(kept) <= 10 * NUM_JUDGEMENTS
    waiting = await ready.advance(bootstrap)
    assert stands(waiting) == ("running", "judge_ranked")
    assert waiting.failing_since > before  # what was judged in between is progress

    await ready.assess(bootstrap)
    whole = await ready.rows("SELECT * FROM ranked_judgements ORDER BY id")
    assert [row for row in whole if row in kept] == kept
    assert len(whole) == 18 * NUM_JUDGEMENTS + 18
    assert stands(await ready.advance(bootstrap)) == ("running", "train")
    assert (await ready.iteration(bootstrap)).failing_since is None


async def test_an_assessing_task_whose_time_is_up_sends_for_a_successor(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve(Faults(latency_seconds=1.5))
    bootstrap, _ = await ready.new_run(
        bootstrap=BOOTSTRAP, rollout={"max_prompts_in_flight": 1}, sampling={"num_samples": 2}
    )
    await until_judged(ready, bootstrap)
    await ready.lose_messages()
    monkeypatch.setattr("services.worker.assess.WORK_SECONDS", 1.2)  # less than one judgement
    await ready.assess(bootstrap)
    assert await num_judgements(ready) == 2 * NUM_JUDGEMENTS  # one response in each lane
    assert (ready.messages("rollout"), ready.messages("control")) == (1, 0)
