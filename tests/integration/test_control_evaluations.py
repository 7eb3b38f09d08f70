"""Cancel and retry of evaluations, at work and before."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.errors import NotFound
from rewardloop.store import evaluations
from tests.integration.controlled import HANGING, with_three_prompts


@pytest.fixture
async def ready(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return await with_three_prompts(world, monkeypatch)


@pytest.fixture
async def api(ready: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with ready.api() as client:
        yield client


async def an_evaluation(world: Any) -> UUID:
    await world.publish("new", parent="base")
    await world.add_prompts("a question", "another", dataset="evaluation")
    async with world.store.transaction() as session:
        made = await evaluations.create(session, "new", "base", EvaluationConfig())
        return made.id


async def test_an_evaluation_is_cancelled_while_its_calls_hang_and_retried(
    ready: Any, api: httpx.AsyncClient
) -> None:
    engine = ready.serve(HANGING)
    evaluation_id = await an_evaluation(ready)
    url = f"/v1/evaluations/{evaluation_id}"
    working = asyncio.create_task(ready.evaluate(evaluation_id))
    async with asyncio.timeout(120):
        while engine.num_requests < 2:
            await asyncio.sleep(0.01)
    assert (await api.post(f"{url}/cancel")).json()["wish"] == "cancel"
    async with asyncio.timeout(60):
        await working
    view = (await api.post(f"{url}/cancel")).json()
    assert (view["state"], view["wish"], view["result"]) == ("cancelled", None, None)
    (only,) = await ready.new_run()
    ready.stop_generator()
    ready.stop_generator()
    ready.serve()
    assert (await api.post(f"{url}/retry")).json()["state"] == "queued"
    assert (await api.post(f"{url}/retry")).json()["state"] == "queued"
    view = (await api.get(f"/v1/iterations/{only}")).json()
    assert view["waits_for"] == f"evaluation {evaluation_id}, which goes first"
    await ready.evaluate(evaluation_id)
    assert (await api.get(url)).json()["state"] == "succeeded"
    assert (await api.post(f"{url}/cancel")).status_code == 409


async def test_an_evaluation_that_waits_is_cancelled_at_once_and_a_failed_one_retried(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    evaluation_id = await an_evaluation(ready)
    url = f"/v1/evaluations/{evaluation_id}"
    assert (await api.post(f"{url}/cancel")).json()["state"] == "cancelled"
    await ready.evaluate(evaluation_id)
    assert await ready.rows("SELECT 1 FROM evaluation_answers") == []
    await api.post(f"{url}/retry")
    async with ready.store.transaction() as session:
        assert await evaluations.try_start(session, evaluation_id)
        await evaluations.note_failure(session, evaluation_id, NotFound("gone"))
    assert (await api.get(url)).json()["error"] == "gone"
    view = (await api.post(f"{url}/retry")).json()
    assert (view["state"], view["error"], view["finished_at"]) == ("queued", None, None)
    await ready.evaluate(evaluation_id)
    assert (await api.get(url)).json()["state"] == "succeeded"
