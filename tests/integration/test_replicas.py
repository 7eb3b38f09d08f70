"""Replicas that register themselves: they join, are asked, are swapped, leave and die."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client import REGISTRY

from benchmarks.rolling import answers, router
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.embedded.process import Process, free_port
from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import ReplicaState
from rewardloop.store import replicas, versions
from rewardloop.store.replicas import Standing
from services.generator.stub_engine import Faults, StubEngine
from services.generator.stub_engine import make_app as make_generator
from services.worker import fleet, steps
from tests.integration.conftest import Served
from tests.integration.rolled_out import PROMPTS, assert_complete

SECONDS = 5.0
"""So soon a replica that joined is asked."""


@pytest.fixture
async def world_of_replicas(world: Any) -> Any:
    """None is named by hand; the judge asks an engine of its own."""
    await world.with_base()
    world.serve()
    world.settings = world.settings.model_copy(update={"generator_urls": []})
    return world


async def start(world: Any, faults: Faults | None = None, version: str = "base") -> tuple[str, Any]:
    """A replica that registers itself: its address and its engine."""
    url = f"http://127.0.0.1:{free_port()}"
    world.monkeypatch.setenv("REWARDLOOP_INITIAL_VERSION", version)
    world.monkeypatch.setenv("REWARDLOOP_REPLICA_URL", f"{url}/")
    engine = StubEngine(world.settings.checkpoint_root / version, faults=faults)
    world.served.append(Served(make_generator(engine), url))
    world.monkeypatch.delenv("REWARDLOOP_REPLICA_URL")
    return url, engine


async def joined(world: Any, url: str, seconds: float = SECONDS) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            for row in await world.rows("SELECT * FROM replicas WHERE control_url = :u", u=url):
                found: dict[str, Any] = row
                return found
            await asyncio.sleep(0.05)


async def data_urls(world: Any) -> list[str]:
    async with world.store.transaction() as session:
        return await replicas.data_urls(session)


async def ready(url: str) -> int:
    async with httpx.AsyncClient(base_url=url) as client:
        return (await client.get("/ready")).status_code


async def test_a_replica_joins_when_it_is_verified_and_leaves_when_it_ends(
    world_of_replicas: Any,
) -> None:
    world = world_of_replicas
    url, _ = await start(world)
    row = await joined(world, url)
    assert (row["version_id"], row["state"], row["data_url"]) == ("base", "ready", url)
    assert await data_urls(world) == [url]
    assert await ready(url) == 200
    await asyncio.to_thread(world.stop_generator)
    assert await world.rows("SELECT 1 FROM replicas") == []


async def test_one_that_started_on_an_older_version_loads_the_served_one_before_it_joins(
    world_of_replicas: Any,
) -> None:
    world = world_of_replicas
    await world.publish("m1", parent="base")
    async with world.store.transaction() as session:
        await versions.set_serving(session, "m1")
    url, engine = await start(world, version="base")
    assert (await joined(world, url))["version_id"] == "m1"
    assert await engine.get_weight_version() == "m1"


async def test_one_whose_weights_are_wrong_never_joins(world_of_replicas: Any) -> None:
    world = world_of_replicas
    await world.publish("m1", parent="base")
    async with world.store.transaction() as session:
        await versions.set_serving(session, "m1")
    stale = Faults(stale_after_reload=True)
    url, _ = await start(world, faults=stale, version="base")
    await asyncio.sleep(1.5)
    assert await world.rows("SELECT 1 FROM replicas") == []
    assert await ready(url) == 503


def standing(url: str = "http://a", **other: Any) -> Standing:
    state = ReplicaState.READY
    return replace(Standing(url, f"{url}/data", UUID(int=1), "base", state), **other)


async def age(world: Any, seconds: float) -> None:
    await world.rows(
        "UPDATE replicas SET heartbeat_at = clock_timestamp() - make_interval(secs => :s)"
        " RETURNING 1",
        s=seconds,
    )


async def test_only_ready_replicas_on_the_served_version_with_a_heartbeat_are_asked(
    world: Any,
) -> None:
    await world.with_base()
    async with world.store.transaction() as session:
        assert await replicas.join(session, standing()) is None
        assert await replicas.data_urls(session) == ["http://a/data"]
        for other in (
            {"version": "m9"},
            {"state": ReplicaState.SWAPPING},
            {"state": ReplicaState.LEAVING},
        ):
            assert await replicas.beat(session, standing(**other))
            assert await replicas.data_urls(session) == []
        assert await replicas.beat(session, standing())
    await age(world, 7)
    assert await data_urls(world) == ["http://a/data"]
    await age(world, 9)
    assert await data_urls(world) == []
    async with world.store.transaction() as session:
        assert await replicas.alive(session) == []


async def test_one_that_was_held_for_dead_or_lost_its_address_joins_again(world: Any) -> None:
    await world.with_base()
    async with world.store.transaction() as session:
        await replicas.join(session, standing())
        assert not await replicas.beat(session, standing(instance=uuid4()))
    await age(world, 9)
    async with world.store.transaction() as session:
        assert not await replicas.beat(session, standing())
        assert await replicas.join(session, standing(version="m0")) == "base"
        assert await replicas.join(session, standing()) is None
        assert await replicas.beat(session, standing())
        await replicas.leave(session, standing(instance=uuid4()))
        assert await replicas.data_urls(session) == ["http://a/data"]
        await replicas.leave(session, standing())
        assert await replicas.data_urls(session) == []


async def test_rows_of_replicas_that_died_long_ago_go(world: Any) -> None:
    await world.with_base()
    async with world.store.transaction() as session:
        await replicas.join(session, standing("http://old"))
    await age(world, 2 * 86400)
    async with world.store.transaction() as session:
        await replicas.join(session, standing())
    assert [row["control_url"] for row in await world.rows("SELECT * FROM replicas")] == [
        "http://a"
    ]


async def test_without_any_replica_the_message_says_how_there_could_be_one(world: Any) -> None:
    settings = world.settings.model_copy(update={"generator_urls": []})
    with pytest.raises(UpstreamUnavailable, match="none has registered itself"):
        await fleet.fleet(world.store, settings)
    with pytest.raises(UpstreamUnavailable, match="no generator is ready"):
        async with fleet.generators(world.store, settings):
            pass


async def test_replicas_join_and_die_in_the_middle_of_a_roll_out(
    world_of_replicas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = world_of_replicas
    monkeypatch.setattr("rewardloop.clients.generator.RETRY_SECONDS", 20)
    await world.add_prompts(*(f"{prompt} {n}" for prompt in PROMPTS for n in range(8)))
    (iteration_id,) = await world.new_run(rollout={"max_prompts_in_flight": 4})
    await world.in_rollout(iteration_id)
    first = process(url := f"http://127.0.0.1:{free_port()}", tmp_path / "log")
    try:
        await joined(world, url, seconds=30)
        rolling_out = asyncio.create_task(world.roll_out(iteration_id))
        while not await world.rows("SELECT 1 FROM responses"):
            await asyncio.sleep(0.05)
        second_url, second = await start(world, Faults(latency_seconds=0.5))
        await joined(world, second_url)
        async with asyncio.timeout(SECONDS):
            while not second.num_requests:
                await asyncio.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while await data_urls(world) != [second_url]:
                await asyncio.sleep(0.1)
        await rolling_out
    finally:
        first.stop()
    prompts = await world.rows("SELECT state, num_attempts FROM iteration_prompts")
    assert prompts == [{"state": "done", "num_attempts": 0}] * 32


async def test_one_that_is_killed_behind_a_stock_router_fails_no_prompt(
    world_of_replicas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = world_of_replicas
    monkeypatch.setattr("rewardloop.clients.generator.RETRY_SECONDS", 30)
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    data = f"http://127.0.0.1:{free_port()}"
    world.settings = world.settings.model_copy(update={"data_url": data})
    await world.add_prompts(*(f"{prompt} {n}" for prompt in PROMPTS for n in range(8)))
    (iteration_id,) = await world.new_run(rollout={"max_prompts_in_flight": 4})
    await world.in_rollout(iteration_id)
    started = [process(url, tmp_path / f"log-{n}") for n, url in enumerate(urls)]
    try:
        for url in urls:
            await joined(world, url, seconds=60)
        started.append(router(data, urls, tmp_path / "router"))
        await started[-1].wait_until(answers(f"{data}/health"), 60)
        rolling_out = asyncio.create_task(world.roll_out(iteration_id))
        while not await world.rows("SELECT 1 FROM responses"):
            await asyncio.sleep(0.05)
        os.kill(started[0].pid, signal.SIGKILL)
        await rolling_out
    finally:
        for one in started:
            one.stop()
    prompts = await world.rows("SELECT state, num_attempts FROM iteration_prompts")
    assert prompts == [{"state": "done", "num_attempts": 0}] * 32


def process(url: str, log: Path) -> Process:
    """A replica that can be killed."""
    command = [sys.executable, "-m", "services.generator.stub_engine"]
    options = ["--port", url.rpartition(":")[2], "--faults", '{"latency_seconds": 0.5}']
    environment = {**os.environ, "REWARDLOOP_REPLICA_URL": url}
    return Process("stub", [*command, *options], environment, log)


@asynccontextmanager
async def two(world: Any, **settings: Any) -> AsyncIterator[list[str]]:
    urls = [(await start(world))[0] for _ in range(2)]
    for url in urls:
        await joined(world, url)
    world.settings = world.settings.model_copy(update=settings)
    await world.publish("m1", parent="base")
    yield sorted(urls)


@pytest.mark.parametrize(("order", "together"), [("rolling", 1), ("together", 2)])
async def test_registered_replicas_are_swapped_one_after_another_or_together(
    world_of_replicas: Any, monkeypatch: pytest.MonkeyPatch, order: str, together: int
) -> None:
    world, now, most = world_of_replicas, 0, 0
    activate = ReplicaAdmin.activate

    async def counted(self: ReplicaAdmin, version: str) -> dict[str, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        try:
            return await activate(self, version)
        finally:
            now -= 1

    monkeypatch.setattr(ReplicaAdmin, "activate", counted)
    async with two(world, swap_order=order) as urls:
        found = await steps.bring_to(world.store, world.settings, "m1")
        assert [one["url"] for one in found] == urls
    assert most == together
    rows = await world.rows("SELECT version_id FROM replicas")
    assert [row["version_id"] for row in rows] == ["m1", "m1"]


async def test_where_one_replica_is_away_none_is_touched(world_of_replicas: Any) -> None:
    world = world_of_replicas
    async with two(world) as urls:
        gone = f"http://127.0.0.1:{free_port()}"
        named = world.settings.model_copy(update={"generator_urls": [gone]})
        swaps = REGISTRY.get_sample_value("rewardloop_swaps_total", {"outcome": "succeeded"})
        with pytest.raises(UpstreamUnavailable, match=f"{gone} does not answer"):
            await steps.bring_to(world.store, named, "m1")
        succeeded = {"outcome": "succeeded"}
        assert REGISTRY.get_sample_value("rewardloop_swaps_total", succeeded) == swaps
        key = world.settings.admin_key.get_secret_value()
        for url in urls:
            async with ReplicaAdmin(url, key) as admin:
                assert (await admin.weights())["version"] == "base"


async def test_in_a_rolling_swap_one_replica_is_always_ready(world_of_replicas: Any) -> None:
    world = world_of_replicas
    async with two(world, notice_seconds=2.0) as urls, httpx.AsyncClient() as client:
        swapping = asyncio.create_task(steps.bring_to(world.store, world.settings, "m1"))
        seen = set()
        while not swapping.done():
            answers = await asyncio.gather(*(client.get(f"{url}/ready") for url in urls))
            seen.add(tuple(answer.status_code for answer in answers))
            await asyncio.sleep(0.02)
        await swapping
    assert seen == {(200, 200), (503, 200), (200, 503)}


async def test_a_version_is_not_marked_while_a_replica_serves_another(
    world_of_replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One joins while the others are swapped: the next try brings it along."""
    world = world_of_replicas
    url, _ = await start(world)
    await joined(world, url)
    await world.add_prompts("one")
    (iteration_id,) = await world.new_run(base_version="base")
    await world.publish("m1", parent="base")
    late: list[str] = []
    bring_to = steps.bring_to

    async def with_a_late_one(*args: Any) -> Any:
        found = await bring_to(*args)
        if not late:
            late.append((await start(world))[0])
            await joined(world, late[0])
        return found

    monkeypatch.setattr(steps, "bring_to", with_a_late_one)
    made = steps.Steps(world.store, world.settings, None, await world.iteration(iteration_id))
    monkeypatch.setattr(steps.iterations, "locked", lambda *_: asyncio.sleep(0))
    with pytest.raises(UpstreamUnavailable, match=f"{late or 'http'}.* joined during the swap"):
        await made._serve("m1")
    assert await world.serving() == "base"
    await made._serve("m1")
    assert await world.serving() == "m1"
    async with ReplicaAdmin(late[0], world.settings.admin_key.get_secret_value()) as admin:
        assert (await admin.weights())["version"] == "m1"


async def test_samples_and_judgements_are_asked_for_at_the_one_data_address(
    world_of_replicas: Any,
) -> None:
    """A router that knows nothing of us; here an engine of its own, so that it can be told."""
    world = world_of_replicas
    url, replica = await start(world)
    await joined(world, url)
    router = StubEngine(world.settings.checkpoint_root / "base")
    world.served.append(Served(make_generator(router), data := f"http://127.0.0.1:{free_port()}"))
    judge = f"http://127.0.0.1:{free_port()}"
    everything = {"data_url": data, "judge_upstream_url": data, "judge_url": judge}
    world.settings = world.settings.model_copy(update=everything)
    world.serve_judge()
    await world.add_prompts(*PROMPTS)
    (iteration_id,) = await world.new_run()
    await world.in_rollout(iteration_id)
    await world.roll_out(iteration_id)
    await assert_complete(world)
    num_requests = len(PROMPTS) * (1 + 4)  # one for the samples, one for each answer's judgements
    assert (replica.num_requests, router.num_requests) == (0, num_requests)
