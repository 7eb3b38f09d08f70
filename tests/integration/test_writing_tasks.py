"""Tasks that write prompts: killed, side by side, out of time, on a foreign model."""

import asyncio
import itertools
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rewardloop.embedded.process import free_port
from rewardloop.errors import TooFewPrompts, UpstreamUnavailable
from rewardloop.store import candidates
from services.generator.stub_engine import Faults
from services.worker import prompts as writing
from tests.integration.conftest import Served
from tests.integration.prompt_writing import (
    NUM_WRITTEN_AT_ONCE,
    SELF_INSTRUCT,
    in_prompts,
    stands,
    with_human_prompts,
    written,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_human_prompts(world)


async def test_a_task_that_is_killed_between_batches_is_gone_on_with(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BATCH_SIZE", 4)
    engine = ready.serve()
    (only,) = await in_prompts(ready)
    add, calls = candidates.add, itertools.count()

    async def killed(*args: Any) -> None:
        if next(calls) == 1:
            raise RuntimeError("killed")
        await add(*args)

    monkeypatch.setattr(candidates, "add", killed)
    with pytest.raises(RuntimeError, match="killed"):
        await ready.write_prompts(only)
    kept = await written(ready, only)
    assert [row["attempt"] for row in kept] == [0, 1, 2, 3]
    assert stands(await ready.advance(only)) == ("running", "prompts")

    await ready.write_prompts(only)
    whole = await written(ready, only)
    assert whole[:4] == kept
    assert [row["attempt"] for row in whole] == list(range(len(whole)))
    assert sum(row["prompt_id"] is not None for row in whole) == 6
    num_batches = -(-len(whole) // 4)
    assert engine.num_requests == 4 * num_batches  # the gate had kept the lost batch's answers
    assert stands(await ready.advance(only)) == ("running", "rollout")
    await ready.write_prompts(only)  # late: nobody waits for prompts any more
    assert await written(ready, only) == whole


async def test_a_prompt_model_without_room_for_the_shots_fails_the_iteration(ready: Any) -> None:
    ready.serve(max_model_len=40)
    (only,) = await in_prompts(ready)
    with pytest.raises(TooFewPrompts, match=r"0 of 6 wanted .* 30 refused"):
        await ready.write_prompts(only)
    assert "maximum context length is 40" in (await written(ready, only))[0]["detail"]


async def test_two_writing_tasks_at_once_are_as_good_as_one(ready: Any) -> None:
    engine = ready.serve(Faults(latency_seconds=0.01))
    (only,) = await in_prompts(ready)
    await asyncio.gather(*(ready.write_prompts(only) for _ in range(3)))
    assert engine.num_requests == NUM_WRITTEN_AT_ONCE
    assert await ready.value("SELECT count(*) FROM iteration_prompts") == 6


async def test_a_writing_task_whose_time_is_up_sends_for_a_successor(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "WORK_SECONDS", -1)
    ready.serve()
    (only,) = await in_prompts(ready)
    await ready.lose_messages()
    await ready.write_prompts(only)
    assert (ready.messages("rollout"), ready.messages("control")) == (1, 0)
    assert await written(ready, only) == []


@pytest.fixture
def foreign(world: Any) -> list[dict[str, Any]]:
    """A foreign prompt model in the world's settings, and what it was asked so far."""
    asked: list[dict[str, Any]] = []

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        asked.append({**body, "key": request.headers["authorization"]})
        text = f" Set number {len(asked)} out in {'very ' * len(asked)}few words\nTask 10: more"
        return JSONResponse({"choices": [{"index": 0, "text": text}]})

    app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    url = f"http://127.0.0.1:{free_port()}"
    world.served.append(Served(app, url))
    secret = type(world.settings.api_key)
    world.settings = world.settings.model_copy(
        update={
            "prompt_upstream_url": url,
            "prompt_upstream_model": "llama-2-chat",
            "prompt_upstream_key": secret("the foreign key"),
        }
    )
    return asked


async def test_a_foreign_prompt_model_writes_and_the_generators_stay(
    ready: Any, foreign: list[dict[str, Any]]
) -> None:
    engine = ready.serve()
    (only,) = await in_prompts(ready, self_instruct={**SELF_INSTRUCT, "max_similarity": 1.0})
    await ready.write_prompts(only)
    assert engine.num_requests == 0
    assert await ready.rows("SELECT * FROM events WHERE kind = 'version.served'") == []
    assert len(foreign) == NUM_WRITTEN_AT_ONCE
    assert {(body["key"], body["model"]) for body in foreign} == {
        ("Bearer the foreign key", "llama-2-chat")
    }
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in foreign} == {
        (0.6, 0.9, 128)
    }
    (row, *_) = await written(ready, only)
    assert row["text"] == "Set number 1 out in very few words"
    told = (await ready.iteration(only)).report["prompt_model"]
    assert told == {"name": "llama-2-chat", "is_own": True}
    assert stands(await ready.advance(only)) == ("running", "rollout")


async def test_a_prompt_model_that_is_down_is_waited_for(ready: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ready.settings = ready.settings.model_copy(update={"prompt_upstream_url": url})
    ready.serve()
    (only,) = await in_prompts(ready)
    with pytest.raises(UpstreamUnavailable, match=url):
        await ready.write_prompts(only)
    waiting = await ready.iteration(only)
    assert stands(waiting) == ("running", "prompts")
    assert waiting.failing_since is not None
