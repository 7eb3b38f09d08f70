"""A roll-out hears what its engines report, and sends as many calls at once as keep them busy."""

import asyncio
import logging
from typing import Any

import pytest

from rewardloop import telemetry
from rewardloop.clients.allowance import FIRST_CALLS
from services.generator.stub_engine import Faults
from services.worker import fleet

MAX_RUNNING = 4
NUM_PROMPTS = 32


@pytest.fixture
async def small(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine that runs few requests at once, and an iteration that has many."""
    monkeypatch.setattr(fleet, "FOLLOW_SECONDS", 0.05)
    await world.with_base()
    await world.add_prompts(*(f"question {number}" for number in range(NUM_PROMPTS)))
    (made,) = await world.new_run(rollout={"max_prompts_in_flight": NUM_PROMPTS})
    await world.in_rollout(made)
    engine = world.serve(Faults(latency_seconds=0.02, max_running=MAX_RUNNING))
    return made, engine


async def most_waiting(engine: Any, num_asked: int) -> int:
    """In the engine, once it was asked so often."""
    while engine.num_requests < num_asked:
        await asyncio.sleep(0.01)
    most = 0
    while engine.load.num_running:
        most = max(most, engine.load.num_waiting)
        await asyncio.sleep(0.01)
    return most


async def test_little_waits_in_an_engine_that_is_full(
    world: Any, small: Any, caplog: pytest.LogCaptureFixture
) -> None:
    iteration_id, engine = small
    caplog.set_level(logging.INFO, "rewardloop.worker")
    seen = asyncio.create_task(most_waiting(engine, 2 * NUM_PROMPTS))
    async with asyncio.timeout(120):
        await world.roll_out(iteration_id)
        assert await seen <= 3 * MAX_RUNNING  # of 32 to 128 that the prompts would send
    assert await world.value("SELECT count(*) FROM judgements") == NUM_PROMPTS * 4 * 3
    (told,) = [line for line in caplog.messages if "calls at once" in line]
    assert "reports" in told
    (url,) = world.settings.generator_urls
    allowed = telemetry.CALLS_ALLOWED.labels(url)._value.get()
    assert allowed < FIRST_CALLS


async def test_behind_a_router_the_replicas_reports_count(world: Any, small: Any) -> None:
    iteration_id, _ = small
    (url,) = world.settings.generator_urls
    router = url.replace("127.0.0.1", "localhost")
    world.settings = world.settings.model_copy(update={"data_url": router})
    async with asyncio.timeout(120):
        await world.roll_out(iteration_id)
    assert telemetry.CALLS_ALLOWED.labels(router)._value.get() < FIRST_CALLS
