"""Messages are hints: relayed once, never lost with a commit, and not missed when they are lost."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import kombu.pools
import pytest

from rewardloop import queue_names
from rewardloop.errors import UpstreamUnavailable
from rewardloop.queue import make_app, relay
from rewardloop.store import outbox, rollouts
from services.api.app import make_app as make_api
from services.worker import reconcile


@pytest.fixture
async def ready(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


def taken(world: Any, queue: str) -> tuple[str, str] | None:
    """Take the oldest message of a queue, as a worker would: (task, iteration id)."""
    raw = world.broker.rpop(queue)
    if raw is None:
        return None
    message = json.loads(raw)
    (args, kwargs, _) = json.loads(base64.b64decode(message["body"]))
    assert kwargs == {}
    (iteration_id,) = args
    return message["headers"]["task"], iteration_id


async def waiting(world: Any) -> int:
    return await world.value("SELECT count(*) FROM outbox")


@pytest.fixture
def broker_down(ready: Any, unused_url: Callable[[], str]) -> Any:
    """The world's settings, but with a broker at whose address nothing listens."""
    url = unused_url().replace("http://", "redis://") + "/0"
    return ready.settings.model_copy(update={"broker_url": type(ready.settings.broker_url)(url)})


async def test_a_message_is_relayed_once(ready: Any) -> None:
    (only,) = await ready.new_run()
    assert await waiting(ready) == 1
    assert await relay(ready.store, ready.celery) == 1
    assert await relay(ready.store, ready.celery) == 0
    assert await waiting(ready) == 0
    assert taken(ready, "control") == (queue_names.ADVANCE, str(only))
    assert ready.messages("control") == ready.messages("rollout") == 0


async def test_two_relays_at_once_send_each_message_once(ready: Any) -> None:
    (only,) = await ready.new_run()
    async with ready.store.transaction() as session:
        outbox.add(session, queue_names.ROLLOUT, only, times=30)
    sent = await asyncio.gather(*(relay(ready.store, ready.celery) for _ in range(3)))
    assert sum(sent) == 31
    assert (ready.messages("rollout"), ready.messages("control")) == (30, 1)


async def test_a_relay_takes_no_more_than_its_limit_oldest_first(ready: Any) -> None:
    (only,) = await ready.new_run()
    async with ready.store.transaction() as session:
        outbox.add(session, queue_names.ROLLOUT, only, times=5)
    async with ready.store.transaction() as session:
        assert await outbox.take(session, limit=1) == [(queue_names.ADVANCE, only)]
        assert len(await outbox.take(session, limit=2)) == 2
    assert await waiting(ready) == 3


async def test_a_rolled_back_change_sends_nothing(ready: Any) -> None:
    (only,) = await ready.new_run()
    await relay(ready.store, ready.celery)
    async with ready.store.transaction() as session:
        outbox.add(session, queue_names.ROLLOUT, only)
        await session.flush()
        await session.rollback()
    assert await relay(ready.store, ready.celery) == 0


async def test_with_the_broker_down_nothing_is_lost(ready: Any, broker_down: Any) -> None:
    await ready.new_run(count=2)
    app = make_app(broker_down)
    with pytest.raises(UpstreamUnavailable, match="broker"):
        await relay(ready.store, app)
    kombu.pools.reset()
    app.close()
    assert await waiting(ready) == 2
    assert await relay(ready.store, ready.celery) == 2


async def test_with_the_broker_down_the_api_still_answers_201(ready: Any, broker_down: Any) -> None:
    api = make_api(broker_down)
    key = {"authorization": f"Bearer {broker_down.api_key.get_secret_value()}"}
    transport = httpx.ASGITransport(app=api)
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=transport, base_url="http://api", headers=key) as client,
    ):
        run = (await client.post("/v1/runs", json={})).json()
        answer = await client.post(f"/v1/runs/{run['id']}/iterations", json={"count": 2})
    assert answer.status_code == 201
    assert len(answer.json()["iterations"]) == 2
    assert await waiting(ready) == 2
    # The next reconciler whose broker answers sends them.
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") >= 2


async def test_the_reconciler_brings_back_a_rollout_whose_messages_were_lost(ready: Any) -> None:
    ready.serve_generator()
    (only,) = await ready.new_run()
    await ready.advance(only)
    assert ready.messages("rollout") == 1
    ready.broker.flushall()
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "rollout") == (queue_names.ROLLOUT, str(only))
    assert taken(ready, "control") == (queue_names.ADVANCE, str(only))


async def test_the_reconciler_leaves_a_rollout_alone_that_somebody_works_on(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    async with ready.store.transaction() as session:
        await rollouts.lease(session, only, "busy", 3, 60)
    ready.broker.flushall()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("rollout") == 0
    tokens = await ready.rows("SELECT lease_owner FROM iteration_prompts")
    assert [row["lease_owner"] for row in tokens] == ["busy"] * 3


async def test_the_reconciler_takes_expired_leases_back_and_sends_for_a_task(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    async with ready.store.transaction() as session:
        await rollouts.lease(session, only, "dead", 3, -1)
    ready.broker.flushall()
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "rollout") == (queue_names.ROLLOUT, str(only))
    states = await ready.rows("SELECT state, lease_owner FROM iteration_prompts")
    assert states == [{"state": "pending", "lease_owner": None}] * 3


async def test_one_reconciler_works_at_a_time(ready: Any) -> None:
    await ready.new_run()
    async with ready.store.advisory_lock("reconcile") as held:
        assert held
        await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == 0
    async with ready.store.advisory_lock("reconcile") as held:
        assert held  # given back


async def test_an_idle_reconciler_sends_nothing(ready: Any) -> None:
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == ready.messages("rollout") == 0


async def test_losing_every_message_loses_time_and_no_data(ready: Any) -> None:
    """A whole iteration, with the broker emptied whenever anything was sent."""
    ready.serve()
    (only,) = await ready.new_run()
    tasks = {queue_names.ADVANCE: ready.advance, queue_names.ROLLOUT: ready.roll_out}
    for _ in range(10):
        ready.broker.flushall()
        await reconcile.run(ready.store, ready.celery)
        todo = {message for queue in ("rollout", "control") if (message := taken(ready, queue))}
        for task, iteration_id in sorted(todo):
            await tasks[task](UUID(iteration_id))
        iteration = await ready.iteration(only)
        if iteration.phase == "train" and iteration.new_version_id is None:
            await ready.train(only)
        if iteration.state == "succeeded":
            break
    assert (iteration.state, iteration.phase) == ("succeeded", "done")
    assert await ready.value("SELECT count(*) FROM responses") == 12
    assert await ready.value("SELECT count(*) FROM judgements") == 36
