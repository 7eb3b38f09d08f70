"""Pause, resume, cancel and retry while calls are in flight, processes die and others wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.errors import Conflict, UpstreamMismatch
from rewardloop.records import Phase, Sample, Stage
from rewardloop.store import iterations, locks, rollouts, training
from services.worker import permit, reconcile
from services.worker.swap import bring_to
from tests.integration.controlled import HANGING, with_three_prompts
from tests.integration.rolled_out import writing
from tests.integration.test_advance import loaded, stands, until_trained

ONE_AT_A_TIME = {"num_tasks": 1, "max_prompts_in_flight": 1}


@pytest.fixture
async def ready(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return await with_three_prompts(world, monkeypatch)


@pytest.fixture
async def api(ready: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with ready.api() as client:
        yield client


async def ask(api: httpx.AsyncClient, iteration_id: UUID, what: str) -> dict[str, Any]:
    answer = await api.post(f"/v1/iterations/{iteration_id}/{what}")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def until(world: Any, sql: str) -> None:
    async with asyncio.timeout(120):
        while not await world.rows(sql):
            await asyncio.sleep(0.01)


def held_back(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The generator's answers wait until it is set."""
    sample, go = GeneratorClient.sample, asyncio.Event()

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        await go.wait()
        return await sample(*args, **kwargs)

    monkeypatch.setattr(GeneratorClient, "sample", slowly)
    return go


LEASED = "SELECT 1 FROM iteration_prompts WHERE state = 'leased'"


async def test_a_cancelled_iteration_lets_go_while_its_calls_hang(
    ready: Any, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permit, "CHECK_SECONDS", 2.0)
    ready.serve(HANGING)
    (only,) = await ready.new_run()
    (other,) = await ready.new_run()
    await ready.advance(only)
    working = asyncio.create_task(ready.roll_out(only))
    await until(ready, LEASED)
    begun = time.monotonic()
    view = await ask(api, only, "cancel")
    assert (view["state"], view["phase"], view["error"]) == ("cancelled", "rollout", None)
    await working
    assert time.monotonic() - begun < 10
    assert await ready.rows(LEASED) == []
    assert await ready.value("SELECT count(*) FROM responses") == 0
    assert stands(await ready.advance(only)) == ("cancelled", "rollout")
    assert (await ready.iteration(other)).state == "queued"
    ready.stop_generator()  # the judge, and the engine that hangs
    ready.stop_generator()
    ready.serve()
    assert stands(await ready.advance(other)) == ("running", "rollout")


async def test_a_pause_lets_calls_in_flight_end_and_takes_nothing_new(
    ready: Any, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve()
    go = held_back(monkeypatch)
    (only,) = await ready.new_run(rollout=ONE_AT_A_TIME)
    await ready.advance(only)
    working = asyncio.create_task(ready.roll_out(only))
    await until(ready, LEASED)
    view = await ask(api, only, "pause")
    assert (view["state"], view["wish"]) == ("running", "pause")
    assert (await ask(api, only, "pause"))["wish"] == "pause"
    assert stands(await ready.advance(only)) == ("running", "rollout")  # a call is in flight
    go.set()
    await working
    assert stands(await ready.advance(only)) == ("paused", "rollout")
    states = await ready.rows("SELECT state FROM iteration_prompts ORDER BY prompt_id")
    assert [row["state"] for row in states] == ["done", "pending", "pending"]
    assert await ready.value("SELECT count(*) FROM judgements") == 12
    await ready.roll_out(only)  # a message from before
    assert await ready.value("SELECT count(*) FROM responses") == 4
    assert (await ask(api, only, "pause"))["state"] == "paused"


async def test_another_run_goes_on_meanwhile_and_the_weights_are_not_mixed(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    (first,) = await ready.new_run()
    (other,) = await ready.new_run()
    await ready.advance(first)
    assert stands(await ready.advance(other)) == ("queued", "waiting")
    view = (await api.get(f"/v1/iterations/{other}")).json()
    run_id = (await ready.iteration(first)).run_id
    assert view["waits_for"] == f"iteration 1 of run {run_id}, which has the engines"
    await ask(api, first, "pause")
    version = await until_trained(ready, other)
    view = await ask(api, first, "resume")
    assert (view["state"], view["phase"]) == ("queued", "rollout")
    assert stands(await ready.advance(first)) == ("queued", "rollout")  # not its turn
    assert stands(await ready.advance(other)) == ("succeeded", "done")
    assert await loaded(ready) == version
    assert stands(await ready.advance(first)) == ("running", "rollout")
    assert await loaded(ready) == "base"
    await ready.roll_out(first)
    answered = await ready.rows(
        "SELECT DISTINCT weight_version FROM responses WHERE iteration_id = :i", i=first
    )
    assert answered == [{"weight_version": "base"}]


async def test_a_pause_that_is_withdrawn_stops_nothing(
    ready: Any, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve()
    go = held_back(monkeypatch)
    (only,) = await ready.new_run()
    await ready.advance(only)
    working = asyncio.create_task(ready.roll_out(only))
    await until(ready, LEASED)
    assert (await ask(api, only, "pause"))["wish"] == "pause"
    view = await ask(api, only, "resume")
    assert (view["state"], view["wish"]) == ("running", None)
    go.set()
    await working
    await ready.roll_out(only)
    assert stands(await ready.advance(only)) == ("running", "train")


async def test_a_running_training_is_asked_to_stop_and_goes_on(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    await ready.advance(only)
    async with ready.store.transaction() as session:
        job = await training.lease(session, "test", 60)
    assert job is not None
    assert (await ask(api, only, "pause"))["state"] == "running"
    assert stands(await ready.advance(only)) == ("running", "train")
    async with ready.store.transaction() as session:
        await training.end_stopped(session, job)
    assert stands(await ready.advance(only)) == ("paused", "train")
    await ask(api, only, "resume")
    async with ready.store.transaction() as session:
        assert await training.lease(session, "test", 60) is None  # not its turn yet
    assert stands(await ready.advance(only)) == ("running", "train")
    version = await ready.train(only)
    assert stands(await ready.advance(only)) == ("succeeded", "done")
    assert await ready.serving() == version


async def test_a_cancelled_training_frees_the_engines_before_the_trainer_has_seen_it(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    await ready.advance(only)
    async with ready.store.transaction() as session:
        job = await training.lease(session, "test", 60)
    assert (await ask(api, only, "cancel"))["state"] == "cancelled"
    async with ready.store.transaction() as session:
        assert job is not None
        assert await training.wish(session, job) == (True, "cancel")


async def test_a_swap_is_not_torn(
    ready: Any, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    version = await until_trained(ready, only)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any) -> Any:
        begun.set()
        await go.wait()
        return await bring_to(*args)

    monkeypatch.setattr("services.worker.steps.bring_to", slowly)
    controller = asyncio.create_task(ready.advance(only))
    await begun.wait()
    view = await ask(api, only, "cancel")
    assert (view["state"], view["wish"], view["phase"]) == ("running", "cancel", "swap")
    refused = await api.post(f"/v1/iterations/{only}/retry")
    assert refused.status_code == 409
    assert "retry it once its state is 'cancelled'" in refused.json()["detail"]
    go.set()
    # The swap was the last step: what had come to its end is not cancelled.
    assert stands(await controller) == ("succeeded", "done")
    assert await loaded(ready) == await ready.serving() == version


async def test_what_was_asked_of_a_controller_that_died_comes_true(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    async with ready.store.advisory_lock(locks.advancing(only)):  # it is in a step, and dies
        assert (await ask(api, only, "cancel"))["wish"] == "cancel"
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == 1
    assert stands(await ready.advance(only)) == ("cancelled", "rollout")


async def test_a_failed_iteration_goes_on_and_its_error_is_kept_in_the_events(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    first, second = await ready.new_run(count=2)
    await ready.advance(first)
    async with ready.store.transaction() as session:
        failing = await iterations.get(session, first, lock=True)
        await iterations.note_failure(session, failing, UpstreamMismatch("a wrong key"))
    view = (await api.get(f"/v1/iterations/{second}")).json()
    assert view["waits_for"] == "iteration 1 of this run, which failed: retry it"
    view = await ask(api, first, "retry")
    assert (view["state"], view["error"], view["error_kind"]) == ("queued", None, None)
    (kept,) = await ready.rows("SELECT payload FROM events WHERE kind = 'iteration.retried'")
    assert kept["payload"]["error"] == "a wrong key"
    assert (kept["payload"]["phase"], kept["payload"]["was"]) == ("rollout", "failed")
    await until_trained(ready, first)
    assert stands(await ready.advance(first)) == ("succeeded", "done")
    assert stands(await ready.advance(second)) == ("running", "rollout")


async def test_a_retried_training_is_tried_again(ready: Any, api: httpx.AsyncClient) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    await ready.advance(only)
    async with ready.store.transaction() as session:
        job = await training.lease(session, "test", 60)
        assert job is not None
        await training.fail(session, job, "no memory")
    assert stands(await ready.advance(only)) == ("failed", "train")
    await ask(api, only, "retry")
    assert stands(await ready.advance(only)) == ("running", "train")
    await ready.train(only)
    assert stands(await ready.advance(only)) == ("succeeded", "done")


async def test_seconds_of_a_phase_are_those_in_which_it_ran(
    ready: Any, api: httpx.AsyncClient
) -> None:
    """Not those of the pause in between."""
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ask(api, only, "pause")
    await ready.rows(
        "UPDATE phase_spans SET started_at = now() - interval '100 s',"
        " ended_at = now() - interval '90 s' WHERE phase = 'rollout' RETURNING 1"
    )
    assert 9.9 < (await ask(api, only, "resume"))["seconds"]["rollout"] < 10.1
    await ready.advance(only)
    await ready.roll_out(only)
    await ready.advance(only)
    view = (await api.get(f"/v1/iterations/{only}")).json()
    assert 10 < view["seconds"]["rollout"] < 80


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ("succeeded", ("pause", "resume", "cancel", "retry")),
        ("paused", ("retry",)),
        ("cancelled", ("pause", "resume")),
    ],
)
async def test_what_contradicts_is_refused_and_changes_nothing(
    ready: Any, api: httpx.AsyncClient, state: str, refused: tuple[str, ...]
) -> None:
    (only,) = await ready.new_run()
    await ready.rows("UPDATE iterations SET state = :s RETURNING 1", s=state)
    before = (await api.get(f"/v1/iterations/{only}")).json()
    for what in refused:
        answer = await api.post(f"/v1/iterations/{only}/{what}")
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:rewardloop:error:conflict"
    assert (await api.get(f"/v1/iterations/{only}")).json() == before
    unknown = await api.post(f"/v1/iterations/{UUID(int=1)}/pause")
    assert unknown.status_code == 404


async def test_what_comes_from_before_a_stop_is_not_stored(ready: Any) -> None:
    """A worker that heard of nothing brings what another run's version may have written."""
    (only,) = await ready.new_run()
    await ready.in_rollout(only)
    async with ready.store.transaction() as session:
        (mine, *_) = await rollouts.lease(session, only, "me", 3, 60)
        seen = await iterations.get(session, only)
    await ready.rows("UPDATE iterations SET state = 'paused' RETURNING 1")
    late = [(0, Sample("late", 1, 1, "stop", "base"))]
    async with writing(ready, only) as writer:
        assert await writer.samples(mine, late) is None
    async with ready.store.transaction() as session:
        assert await rollouts.lease(session, only, "me", 3, 60) == []
        with pytest.raises(Conflict, match="has gone on from rollout to rollout"):
            await iterations.require_unchanged(session, seen)
    assert await ready.rows("SELECT 1 FROM responses") == []


async def test_a_pause_that_is_asked_during_pairing_reaches_the_training_that_it_adds(
    ready: Any, api: httpx.AsyncClient
) -> None:
    """Else a trainer would take the job of a paused iteration, or the pause would wait for it."""
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    async with ready.store.advisory_lock(locks.advancing(only)):
        assert (await ask(api, only, "pause"))["wish"] == "pause"
    async with ready.store.transaction() as session:  # the step that was under way ends
        await training.add(session, only, Stage.MODEL)
        current = await iterations.get(session, only, lock=True)
        await iterations.enter(session, current, Phase.TRAIN)
    assert stands(await ready.advance(only)) == ("paused", "train")
    async with ready.store.transaction() as session:
        assert await training.lease(session, "test", 60) is None
