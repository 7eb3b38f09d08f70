"""Messages are hints: relayed once, never lost with a commit, and not missed when they are lost."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import kombu.pools
import pytest

from rewardloop.config import Evaluation
from rewardloop.errors import NotFound, UpstreamUnavailable
from rewardloop.queue import HINT_SECONDS, make_app, relay
from rewardloop.records import Phase
from rewardloop.store import evaluations, iterations, outbox, rollouts, sessions
from rewardloop.store.sessions import WORKER
from services.api.app import make_app as make_api
from services.worker import assess, evaluate, prompts, reconcile
from services.worker.presence import present
from tests.integration.conftest import ranked_prompt


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
    assert taken(ready, "control") == (outbox.ADVANCE, str(only))
    assert ready.messages("control") == ready.messages("rollout") == 0


async def test_two_relays_at_once_send_each_message_once(ready: Any) -> None:
    (only,) = await ready.new_run()
    async with ready.store.transaction() as session:
        outbox.add(session, outbox.ROLLOUT, only, times=30)
    sent = await asyncio.gather(*(relay(ready.store, ready.celery) for _ in range(3)))
    assert sum(sent) == 31
    assert (ready.messages("rollout"), ready.messages("control")) == (30, 1)


async def test_a_relay_takes_no_more_than_its_limit_oldest_first(ready: Any) -> None:
    (only,) = await ready.new_run()
    async with ready.store.transaction() as session:
        outbox.add(session, outbox.ROLLOUT, only, times=5)
    async with ready.store.transaction() as session:
        assert await outbox.take(session, limit=1) == [(outbox.ADVANCE, only)]
        assert len(await outbox.take(session, limit=2)) == 2
    assert await waiting(ready) == 3


async def test_a_rolled_back_change_sends_nothing(ready: Any) -> None:
    (only,) = await ready.new_run()
    await relay(ready.store, ready.celery)
    async with ready.store.transaction() as session:
        outbox.add(session, outbox.ROLLOUT, only)
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
    assert taken(ready, "rollout") == (outbox.ROLLOUT, str(only))
    assert taken(ready, "control") == (outbox.ADVANCE, str(only))


async def test_a_message_grows_old(ready: Any) -> None:
    """Workers that were busy for long find no heap of the same reminders."""
    await ready.new_run()
    await relay(ready.store, ready.celery)
    sent = json.loads(ready.broker.rpop("control"))["headers"]
    left = datetime.fromisoformat(sent["expires"]) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=HINT_SECONDS)


async def test_the_reconciler_brings_a_rollout_back_to_its_number_of_tasks(ready: Any) -> None:
    (only,) = await ready.new_run(rollout={"num_tasks": 3})
    await ready.in_rollout(only)
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("rollout") == 3
    async with ready.store.working("busy"):
        async with ready.store.transaction() as session:
            await rollouts.lease(session, only, "busy", 1, 60)
            await rollouts.lease(session, only, "dead", 1, -1)
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        assert ready.messages("rollout") == 2
        async with ready.store.transaction() as session:
            await rollouts.lease(session, only, "busy", 9, 60)
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        assert ready.messages("rollout") == 0  # nothing is pending


async def test_there_are_as_many_tasks_as_workers_unless_a_number_is_given(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("rollout") == 1  # nobody is there, and it waits for whoever comes

    worker = partial(ready.store.working, WORKER, shared=True)
    async with worker(), worker(), ready.store.working("busy"):
        async with ready.store.transaction() as session:
            await rollouts.lease(session, only, "busy", 1, 60)
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        assert ready.messages("rollout") == 1
        async with worker():  # joins in the middle
            await ready.lose_messages()
            await reconcile.run(ready.store, ready.celery)
            assert ready.messages("rollout") == 2


async def test_a_worker_is_counted_from_its_start_to_its_end(ready: Any) -> None:
    with present(ready.settings), present(ready.settings):
        async with asyncio.timeout(60):
            while await num_there(ready) < 2:
                await asyncio.sleep(0.01)
        async with ready.store.transaction() as session:
            assert await rollouts.num_wanted(session, "auto") == 2
            assert await rollouts.num_wanted(session, 5) == 5
    async with asyncio.timeout(60):  # Postgres sees the end of their connections
        while await num_there(ready):
            await asyncio.sleep(0.01)


async def num_there(world: Any) -> int:
    async with world.store.transaction() as session:
        return await sessions.num_workers(session)


async def test_the_reconciler_reminds_only_what_can_go_on(ready: Any) -> None:
    first, _ = await ready.new_run(count=2)
    other, _, _ = await ready.new_run(count=3)
    await ready.publish("new", parent="base")
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "control") == (outbox.ADVANCE, str(first))
    assert taken(ready, "control") == (outbox.ADVANCE, str(other))
    assert ready.messages("control") == 0

    await ready.in_rollout(other)
    async with ready.store.transaction() as session:
        for _ in range(2):
            await evaluations.create(session, "new", "base", Evaluation(dataset="seed"))
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "control") == (outbox.ADVANCE, str(other))
    assert ready.messages("control") == 0
    sent = [taken(ready, "rollout") for _ in range(ready.messages("rollout"))]
    assert set(sent) == {(outbox.ROLLOUT, str(other))}


async def test_the_next_evaluation_is_the_oldest_one(ready: Any) -> None:
    await ready.publish("new", parent="base")
    made = []
    for _ in range(2):
        async with ready.store.transaction() as session:
            created = await evaluations.create(session, "new", "base", Evaluation(dataset="seed"))
            made.append(created.id)
    for evaluation_id in made:
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        assert taken(ready, "control") == (outbox.EVALUATE, str(evaluation_id))
        assert taken(ready, "control") is None
        async with ready.store.transaction() as session:
            assert await evaluations.try_start(session, evaluation_id)
            await evaluations.note_failure(session, evaluation_id, NotFound("for this test"))


async def test_the_reconciler_leaves_a_rollout_alone_that_somebody_works_on(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    async with ready.store.working("busy"):
        async with ready.store.transaction() as session:
            await rollouts.lease(session, only, "busy", 2, 60)
        ready.broker.flushall()
        await reconcile.run(ready.store, ready.celery)
    assert ready.messages("rollout") == 0
    tokens = await ready.rows("SELECT lease_owner FROM iteration_prompts")
    assert sorted(row["lease_owner"] or "nobody" for row in tokens) == ["busy", "busy", "nobody"]


async def test_the_reconciler_takes_expired_leases_back_and_sends_for_a_task(ready: Any) -> None:
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    async with ready.store.transaction() as session:
        await rollouts.lease(session, only, "dead", 3, -1)
    ready.broker.flushall()
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "rollout") == (outbox.ROLLOUT, str(only))
    states = await ready.rows("SELECT state, lease_owner FROM iteration_prompts")
    assert states == [{"state": "pending", "lease_owner": None}] * 3


async def in_phase(world: Any, phase: str, **config: Any) -> UUID:
    """A queued iteration that is put into a phase, with all its messages lost."""
    made = await world.new_run(**config)
    async with world.store.transaction() as session:
        assert await iterations.try_start(session, made[0])
        current = await iterations.get(session, made[0], lock=True)
        await iterations.enter(session, current, Phase(phase))
    await world.lose_messages()
    return made[0]


PHASES = [
    ("prompts", outbox.PROMPTS, prompts.lock_name),
    ("judge_ranked", outbox.ASSESS, assess.lock_name),
    ("assess", outbox.ASSESS, assess.lock_name),
]


@pytest.mark.parametrize(("phase", "task", "lock_name"), PHASES)
async def test_the_reconciler_brings_a_phases_task_back_unless_one_works(
    ready: Any, phase: str, task: str, lock_name: Callable[[UUID], str]
) -> None:
    subject = await in_phase(ready, phase, prompts={"self_instruct": {}})
    async with ready.store.advisory_lock(lock_name(subject)) as held:
        assert held
        await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "rollout") is None
    assert taken(ready, "control") == (outbox.ADVANCE, str(subject))
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "rollout") == (task, str(subject))


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_the_reconciler_brings_an_evaluation_back_unless_a_task_works_on_it(
    ready: Any, state: str
) -> None:
    await ready.publish("new", parent="base")
    async with ready.store.transaction() as session:
        made = await evaluations.create(session, "new", "base", Evaluation(dataset="seed"))
        if state == "running":
            assert await evaluations.try_start(session, made.id)
    await ready.lose_messages()
    async with ready.store.advisory_lock(evaluate.lock_name(made.id)) as held:
        assert held
        await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "control") is None
    await reconcile.run(ready.store, ready.celery)
    assert taken(ready, "control") == (outbox.EVALUATE, str(made.id))


async def test_the_reconciler_leaves_what_is_over_alone(ready: Any) -> None:
    await ready.publish("new", parent="base")
    async with ready.store.transaction() as session:
        made = await evaluations.create(session, "new", "base", Evaluation(dataset="seed"))
        assert await evaluations.try_start(session, made.id)
        await evaluations.note_failure(session, made.id, NotFound("for this test"))
    subject = await in_phase(ready, "assess")
    await ready.rows(
        "UPDATE iterations SET state = 'succeeded' WHERE id = :i RETURNING 1", i=subject
    )
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == ready.messages("rollout") == 0


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
    """A whole bootstrap, an iteration with prompts of its own and their evaluations, with
    the broker emptied whenever anything was sent."""
    ready.serve()
    await ready.add_prompts("How?", "Why?", dataset="evaluation")
    await ready.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(8)))
    await ready.new_run(
        bootstrap={},
        prompts={"num_per_iteration": 3, "self_instruct": {"language": None}},
        evaluation={},
    )
    tasks = {
        outbox.ADVANCE: ready.advance,
        outbox.ROLLOUT: ready.roll_out,
        outbox.PROMPTS: ready.write_prompts,
        outbox.ASSESS: ready.assess,
        outbox.EVALUATE: ready.evaluate,
    }
    unfinished = (
        "SELECT 1 FROM iterations WHERE state <> 'succeeded'"
        " UNION ALL SELECT 1 FROM evaluations WHERE state <> 'succeeded'"
    )
    for _ in range(60):
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        for queue in ("rollout", "control"):
            while message := taken(ready, queue):
                task, subject = message
                await tasks[task](UUID(subject))
        for job in await ready.rows(
            "SELECT iteration_id FROM training_jobs WHERE state = 'queued'"
        ):
            await ready.train(job["iteration_id"])
        if not await ready.rows(unfinished):
            break
    states = await ready.rows("SELECT state, phase FROM iterations")
    assert states == [{"state": "succeeded", "phase": "done"}] * 2
    assert await ready.value("SELECT count(*) FROM responses") == 12
    assert await ready.value("SELECT count(*) FROM judgements") == 36
    # Of 3 prompts for EFT by SFT, and of 2 held out by SFT, M1 and M2; 3 are left to IFT.
    assert await ready.value("SELECT count(*) FROM ranked_judgements") == 18 + 3 * 12
    # SFT, M1 and M2 answer 2 prompts; M1 - SFT, M2 - M1 and M2 - SFT in both orders.
    assert await ready.value("SELECT count(*) FROM evaluation_answers") == 3 * 2
    assert await ready.value("SELECT count(*) FROM comparisons") == 3 * 2 * 2
