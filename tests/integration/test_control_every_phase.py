"""Paused and resumed, cancelled and retried in every phase, a run ends as an undisturbed one."""

import shutil
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop.records import PromptRecord, RankedPrompt, RankedText
from rewardloop.store import runs, versions
from rewardloop.store.models import Iteration
from services.worker import advance, reconcile
from services.worker.swap import bring_to
from tests.integration.conftest import Servers, _empty, ranked_prompt

CONFIG = {
    "bootstrap": {"eft": {"judging": {"num_judgements": 2}, "held_out_fraction": 0.25}},
    "prompts": {
        "num_per_iteration": 4,
        "self_instruct": {"language": None, "max_attempts_per_prompt": 5},
    },
    "rollout": {"num_tasks": 1},
}
OF_BOOTSTRAP = [
    *("train_baseline", "swap_baseline", "judge_ranked", "select_eft"),
    *("train", "swap", "assess"),
]
OF_IMPROVE = ["prompt_model", "prompts", "prepare", "rollout", "pairing", "train", "swap", "assess"]
EVERY_PHASE = [*((0, phase) for phase in OF_BOOTSTRAP), *((1, phase) for phase in OF_IMPROVE)]

Disturb = Callable[[Any, httpx.AsyncClient, UUID], Awaitable[None]]


async def fill(world: Any, servers: Servers) -> None:
    """A world of its own, in which run ids, and so the stub's texts, are those of the other."""
    _empty(servers.database)
    world.broker.flushall()
    shutil.rmtree(world.settings.checkpoint_root, ignore_errors=True)
    chance = Random(0)
    world.monkeypatch.setattr(runs, "uuid4", lambda: UUID(int=chance.getrandbits(128), version=4))
    await world.with_base()
    await world.publish("other", parent="base")
    await world.add_prompts("Explain tides", "Explain bread", "Explain chess", "Explain bees")
    texts = (RankedText("good", 0), RankedText("poor", 1), RankedText("bad", 1))
    record = PromptRecord(({"role": "user", "content": "about kites"},), "best", "test")
    ranked = [ranked_prompt(f"about {t}", f"good {t}", f"poor {t}") for t in "abcdefg"]
    await world.add_ranked(*ranked, RankedPrompt(record, texts))


async def whole_run(
    world: Any, servers: Servers, disturb: Disturb | None = None
) -> tuple[list[tuple[int, str]], dict[str, Any]]:
    """Take a bootstrap and an iteration to their ends; returns where they were disturbed, and
    what there is in the end."""
    await fill(world, servers)
    world.serve()
    disturbed: list[tuple[int, str]] = []
    made = await world.new_run(**CONFIG)
    async with world.api() as api:
        for index, iteration_id in enumerate(made):
            await advance.step(world.store, world.settings, iteration_id)
            while (now := await world.iteration(iteration_id)).state != "succeeded":
                assert now.error is None
                if disturb and (index, now.phase) not in disturbed:
                    disturbed.append((index, now.phase))
                    await disturb(world, api, iteration_id)
                else:
                    await go_one_step(world, now)
    for _ in range(2):
        world.stop_generator()
    return disturbed, await outcome(world)


async def go_one_step(world: Any, now: Iteration) -> None:
    """What workers, the trainer and the controller do next."""
    if now.phase in ("train", "train_baseline"):
        if await world.rows("SELECT 1 FROM training_jobs WHERE state = 'queued'"):
            await world.train(now.id)
    elif now.phase == "prompts":
        await world.write_prompts(now.id)
    elif now.phase == "rollout":
        await world.roll_out(now.id)
    elif now.phase in ("judge_ranked", "assess"):
        await world.assess(now.id)
    await advance.step(world.store, world.settings, now.id)


SAMPLE = "prompt_id, sample_index"
JUDGED = "replace(raw_text, nonce, '****') AS raw_text"
"""A nonce follows from ids, which differ from run to run."""
OUTCOME = {
    "responses": f"SELECT {SAMPLE}, text, weight_version FROM responses",
    "judgements": f"SELECT {SAMPLE}, judge_index, {JUDGED}, judge_version"
    " FROM judgements j JOIN responses r ON r.id = j.response_id",
    "ranked": f"SELECT ranked_response_id, judge_index, {JUDGED}, judge_version"
    " FROM ranked_judgements",
    "candidates": "SELECT attempt, text, reason FROM candidate_prompts",
    "examples": "SELECT ranked_response_id, judge_index FROM eft_examples e"
    " JOIN ranked_judgements j ON j.id = e.ranked_judgement_id",
    "pairs": "SELECT iteration, prompt, chosen, rejected, margin FROM preference_dataset",
    "versions": "SELECT id, kind, parent_id FROM model_versions",
}


async def outcome(world: Any) -> dict[str, Any]:
    """All that was sampled, judged, chosen and trained, without ids that follow from order."""
    found = {name: await world.rows(sql) for name, sql in OUTCOME.items()}
    return {name: sorted(map(str, rows)) for name, rows in found.items()}


async def another_run_serves(world: Any) -> None:
    await bring_to(world.store, world.settings, "other")
    async with world.store.transaction() as session:
        await versions.set_serving(session, "other")


async def asked(api: httpx.AsyncClient, iteration_id: UUID, what: str) -> dict[str, Any]:
    """The answer to `what`, which is asked for twice: the second time changes nothing."""
    url = f"/v1/iterations/{iteration_id}/{what}"
    first = await api.post(url)
    assert first.status_code == 200, first.text
    again = await api.post(url)
    assert again.status_code == 200
    steady = ("state", "wish", "phase", "counts", "error")
    assert {name: again.json()[name] for name in steady} == {
        name: first.json()[name] for name in steady
    }
    answer: dict[str, Any] = first.json()
    return answer


async def paused_and_resumed(world: Any, api: httpx.AsyncClient, iteration_id: UUID) -> None:
    phase = (await world.iteration(iteration_id)).phase
    view = await asked(api, iteration_id, "pause")
    assert (view["state"], view["wish"], view["phase"]) == ("paused", None, phase)
    assert not await advance.step(world.store, world.settings, iteration_id)
    await another_run_serves(world)
    view = await asked(api, iteration_id, "resume")
    assert (view["state"], view["phase"]) == ("queued", phase)
    await advance.step(world.store, world.settings, iteration_id)
    assert (await world.iteration(iteration_id)).state == "running"


async def cancelled_and_retried(world: Any, api: httpx.AsyncClient, iteration_id: UUID) -> None:
    view = await asked(api, iteration_id, "cancel")
    assert (view["state"], view["error"]) == ("cancelled", None)
    assert view["finished_at"] is not None
    await another_run_serves(world)
    view = await asked(api, iteration_id, "retry")
    assert (view["state"], view["finished_at"]) == ("queued", None)
    await advance.step(world.store, world.settings, iteration_id)
    assert (await world.iteration(iteration_id)).state == "running"


async def with_messages_lost(world: Any, api: httpx.AsyncClient, iteration_id: UUID) -> None:
    """The broker is flushed, and the reconciler alone brings it on."""
    await asked(api, iteration_id, "pause")
    await world.lose_messages()
    await reconcile.run(world.store, world.celery)
    assert (await world.iteration(iteration_id)).state == "paused"
    await asked(api, iteration_id, "resume")
    await world.lose_messages()
    await reconcile.run(world.store, world.celery)
    assert world.messages("control") == 1
    await advance.step(world.store, world.settings, iteration_id)


@pytest.mark.parametrize("disturb", [paused_and_resumed, cancelled_and_retried, with_messages_lost])
async def test_a_run_that_is_stopped_in_every_phase_ends_as_one_that_is_not(
    world: Any, servers: Servers, disturb: Disturb
) -> None:
    _, undisturbed = await whole_run(world, servers)
    assert len(undisturbed["responses"]) == 4 * 4
    assert len(undisturbed["pairs"]) >= 1
    assert len(undisturbed["examples"]) >= 1
    where, found = await whole_run(world, servers, disturb)
    assert where == EVERY_PHASE
    assert found == undisturbed
