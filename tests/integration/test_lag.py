"""With `lag: 1` an iteration answers while the one before it trains. Trainings are simulated."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop import checkpoints
from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.errors import TrainingFailed
from rewardloop.records import IterationState, Stage, StopWish
from rewardloop.store import evaluations, iterations, training
from rewardloop.store.models import Iteration
from services.trainer.plan import plan_of
from services.worker import reconcile
from tests.integration.conftest import ranked_prompt
from tests.integration.controlled import with_three_prompts
from tests.integration.test_advance import loaded, stands
from tests.integration.test_control import ask


@pytest.fixture
async def ready(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Served, with three prompts."""
    await with_three_prompts(world, monkeypatch)
    world.serve()
    return world


@pytest.fixture
async def api(ready: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with ready.api() as client:
        yield client


async def to_training(world: Any, iteration_id: UUID) -> None:
    """Take an iteration that is trained from what answers into its training."""
    assert stands(await world.advance(iteration_id)) == ("running", "rollout")
    await world.roll_out(iteration_id)
    assert stands(await world.advance(iteration_id)) == ("running", "train")


async def answered(world: Any, iteration_id: UUID) -> Iteration:
    """Let the next iteration answer while the one before it trains."""
    assert stands(await world.advance(iteration_id)) == ("running", "rollout")
    await world.roll_out(iteration_id)
    waiting: Iteration = await world.advance(iteration_id)
    assert stands(waiting) == ("queued", "pairing")
    return waiting


async def finished(world: Any, iteration_id: UUID) -> str:
    """Take an iteration from its training to its end; returns its version."""
    version: str = await world.train(iteration_id)
    assert stands(await world.advance(iteration_id)) == ("succeeded", "done")
    return version


async def writers(world: Any, iteration_id: UUID) -> set[str]:
    rows = await world.rows(
        "SELECT DISTINCT weight_version, judge_version FROM responses r"
        " JOIN judgements j ON j.response_id = r.id WHERE iteration_id = :i",
        i=iteration_id,
    )
    assert all(row["weight_version"] == row["judge_version"] for row in rows)
    return {row["weight_version"] for row in rows}


async def lags(world: Any) -> dict[int, tuple[int, int]]:
    """Of each iteration's pairs: the smallest and the largest lag."""
    rows = await world.rows(
        "SELECT iteration, min(lag) AS least, max(lag) AS most FROM preference_dataset GROUP BY 1"
    )
    return {row["iteration"]: (row["least"], row["most"]) for row in rows}


async def waits_for(api: httpx.AsyncClient, iteration_id: UUID) -> Any:
    return (await api.get(f"/v1/iterations/{iteration_id}")).json()["waits_for"]


async def test_three_iterations_overlap_and_each_trains_the_newest_version(
    ready: Any, api: httpx.AsyncClient
) -> None:
    first, second, third = await ready.new_run(count=3, lag=1)
    assert stands(await ready.advance(second)) == ("queued", "waiting")  # nothing trains yet
    await to_training(ready, first)
    waiting = await answered(ready, second)
    assert (waiting.base_version_id, waiting.trains_version_id) == ("base", None)
    assert await waits_for(api, second) == "iteration 1 of this run, which runs"
    assert stands(await ready.advance(third)) == ("queued", "waiting")  # two behind

    m2 = await ready.train(first)
    assert stands(await ready.advance(first)) == ("succeeded", "done")
    assert (await loaded(ready), await ready.serving()) == (m2, m2)
    assert stands(await ready.advance(second)) == ("running", "train")
    assert stands(await answered(ready, third)) == ("queued", "pairing")
    m3 = await ready.train(second)
    assert stands(await ready.advance(second)) == ("succeeded", "done")
    assert stands(await ready.advance(third)) == ("running", "train")
    m4 = await ready.train(third)
    assert stands(await ready.advance(third)) == ("succeeded", "done")

    assert [await writers(ready, i) for i in (first, second, third)] == [{"base"}, {"base"}, {m2}]
    parents = await ready.rows("SELECT id, parent_id FROM model_versions WHERE parent_id <> ''")
    assert {row["id"]: row["parent_id"] for row in parents} == {m2: "base", m3: m2, m4: m3}
    assert await lags(ready) == {1: (0, 0), 2: (1, 1), 3: (1, 1)}
    assert await ready.serving() == m4
    view = (await api.get(f"/v1/iterations/{third}")).json()
    told = {name: view[name] for name in ("base_version", "trains_version", "lag", "waits_for")}
    assert told == {"base_version": m2, "trains_version": m3, "lag": 1, "waits_for": None}


async def test_without_a_lag_nothing_starts_while_the_iteration_before_trains(ready: Any) -> None:
    first, second = await ready.new_run(count=2)
    await to_training(ready, first)
    assert stands(await ready.advance(second)) == ("queued", "waiting")
    version = await finished(ready, first)
    await to_training(ready, second)
    assert await writers(ready, second) == {version}
    assert await lags(ready) == {1: (0, 0), 2: (0, 0)}


async def test_the_swap_waits_for_the_answers_and_the_answers_for_the_swap(
    ready: Any, api: httpx.AsyncClient
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    await ready.train(first)
    assert stands(await ready.advance(first)) == ("running", "train")
    assert await loaded(ready) == "base"
    assert (await waits_for(api, first)).startswith("iteration 2 of run ")
    await ready.roll_out(second)
    await ready.lose_messages()
    assert stands(await ready.advance(second)) == ("queued", "pairing")
    assert ready.messages("control") == 2  # both are woken
    assert stands(await ready.advance(second)) == ("queued", "pairing")
    assert stands(await ready.advance(first)) == ("succeeded", "done")
    assert stands(await ready.advance(second)) == ("running", "train")
    assert await writers(ready, second) == {"base"}


async def test_a_version_that_is_there_is_waited_for(ready: Any, api: httpx.AsyncClient) -> None:
    """Its answers are the better ones, and a swap away."""
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    version = await ready.train(first)
    assert stands(await ready.advance(second)) == ("queued", "waiting")
    assert await waits_for(api, second) == "iteration 1 of this run, which runs"
    assert stands(await ready.advance(first)) == ("succeeded", "done")
    await to_training(ready, second)
    assert await writers(ready, second) == {version}
    assert (await ready.iteration(second)).lag == 0


async def test_a_failed_training_keeps_the_answers_and_is_waited_for(
    ready: Any, api: httpx.AsyncClient
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    async with ready.store.transaction() as session:
        job = await training.lease(session, "test", 60)
        await training.fail(session, job, "no memory")
    assert stands(await ready.advance(second)) == ("running", "rollout")
    assert stands(await ready.advance(first)) == ("failed", "train")
    await ready.roll_out(second)
    assert stands(await ready.advance(second)) == ("queued", "pairing")
    assert await waits_for(api, second) == "iteration 1 of this run, which failed: retry it"
    stored = await ready.rows("SELECT * FROM responses ORDER BY id")

    assert (await ask(api, first, "retry"))["state"] == "queued"
    assert stands(await ready.advance(first)) == ("running", "train")
    version = await finished(ready, first)
    assert stands(await ready.advance(second)) == ("running", "train")
    assert await ready.rows("SELECT * FROM responses ORDER BY id") == stored
    assert (await ready.iteration(second)).trains_version_id == version
    assert await ready.value("SELECT count(*) FROM training_jobs WHERE state = 'queued'") == 1


async def test_a_retried_training_goes_on_while_others_have_the_engines(
    ready: Any, api: httpx.AsyncClient
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    async with ready.store.transaction() as session:
        failing = await iterations.get(session, first, lock=True)
        await iterations.note_failure(session, failing, TrainingFailed("no memory"))
    await ask(api, first, "retry")
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == 2
    assert stands(await ready.advance(first)) == ("running", "train")
    assert stands(await ready.iteration(second)) == ("running", "rollout")


async def test_a_failed_swap_is_waited_for(ready: Any, api: httpx.AsyncClient) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    await answered(ready, second)
    version = await ready.train(first)
    damaged = checkpoints.folder_of(ready.settings.checkpoint_root, version) / "model.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"something else")
    assert stands(await ready.advance(first)) == ("failed", "swap")
    assert stands(await ready.advance(second)) == ("queued", "pairing")
    damaged.write_bytes(whole)
    await ask(api, first, "retry")
    assert stands(await ready.advance(first)) == ("succeeded", "done")
    assert stands(await ready.advance(second)) == ("running", "train")


@pytest.mark.parametrize("stop", ["pause", "cancel"])
async def test_the_one_that_trains_is_stopped_and_goes_on(
    ready: Any, api: httpx.AsyncClient, stop: str
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    waiting = await answered(ready, second)
    assert (await ask(api, first, stop))["state"] == ended(stop)
    assert stands(await ready.advance(second)) == ("queued", "pairing")
    assert (await waits_for(api, second)).startswith("iteration 1 of this run, which ")
    await ask(api, first, "resume" if stop == "pause" else "retry")
    assert stands(await ready.advance(first)) == ("running", "train")
    await finished(ready, first)
    again = await ready.advance(second)
    assert stands(again) == ("running", "train")
    assert again.base_version_id == waiting.base_version_id


@pytest.mark.parametrize("stop", ["pause", "cancel"])
async def test_the_one_that_answers_is_stopped_and_goes_on_with_the_same_version(
    ready: Any, api: httpx.AsyncClient, stop: str
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    assert (await ask(api, second, stop))["state"] == ended(stop)
    version = await finished(ready, first)  # it has the engines meanwhile
    assert await loaded(ready) == version
    await ask(api, second, "resume" if stop == "pause" else "retry")
    assert stands(await ready.advance(second)) == ("running", "rollout")
    assert await loaded(ready) == "base"
    await ready.roll_out(second)
    assert stands(await ready.advance(second)) == ("running", "train")
    assert await writers(ready, second) == {"base"}
    assert await lags(ready) == {1: (0, 0), 2: (1, 1)}


async def test_one_that_waits_for_its_version_can_be_paused_and_cancelled(
    ready: Any, api: httpx.AsyncClient
) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    await answered(ready, second)
    for stop, go_on in (("pause", "resume"), ("cancel", "retry")):
        assert (await ask(api, second, stop))["state"] == ended(stop)
        assert (await ask(api, second, go_on))["state"] == "queued"
        assert stands(await ready.advance(second)) == ("queued", "pairing")
    await finished(ready, first)
    assert stands(await ready.advance(second)) == ("running", "train")


def ended(stop: str) -> IterationState:
    return IterationState.PAUSED if stop == StopWish.PAUSE else IterationState.CANCELLED


async def test_what_was_asked_for_at_the_end_of_the_roll_out_comes_first(
    ready: Any, api: httpx.AsyncClient
) -> None:
    """The wish comes between the controller's look and its step."""
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    await ready.roll_out(second)
    await ready.rows("UPDATE iterations SET wish = 'pause' WHERE id = :i RETURNING 1", i=second)
    assert stands(await ready.advance(second)) == ("paused", "rollout")
    await ask(api, second, "resume")
    assert stands(await ready.advance(second)) == ("queued", "pairing")


async def test_nothing_but_postgres_is_needed_to_go_on(ready: Any) -> None:
    """Every message is lost at every step; the reconciler alone brings both iterations on."""
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    for expected in (("running", "rollout"), ("queued", "pairing")):
        await ready.lose_messages()
        await reconcile.run(ready.store, ready.celery)
        assert ready.messages("control") >= 2
        assert stands(await ready.advance(second)) == expected
        await ready.roll_out(second)
    await finished(ready, first)
    await ready.lose_messages()
    await reconcile.run(ready.store, ready.celery)
    assert ready.messages("control") == 1
    assert stands(await ready.advance(second)) == ("running", "train")


async def test_another_run_and_an_evaluation_may_have_the_engines_meanwhile(ready: Any) -> None:
    await ready.publish("other", parent="base")
    first, second = await ready.new_run(count=2, lag=1)
    (foreign,) = await ready.new_run()
    await to_training(ready, first)
    async with ready.store.transaction() as session:
        compared = await evaluations.create(
            session, "other", "base", EvaluationConfig(dataset="seed")
        )
    assert stands(await ready.advance(second)) == ("queued", "waiting")  # evaluations go first
    async with ready.store.transaction() as session:
        assert await evaluations.try_start(session, compared.id)
    await ready.train(first)
    assert stands(await ready.advance(first)) == ("running", "train")  # not torn from it
    async with ready.store.transaction() as session:
        await evaluations.stop(session, await evaluations.get(session, compared.id, lock=True))
    assert stands(await ready.advance(foreign)) == ("running", "rollout")
    assert stands(await ready.advance(first)) == ("running", "train")
    await ready.roll_out(foreign)
    assert stands(await ready.advance(foreign)) == ("running", "train")
    assert stands(await ready.advance(first)) == ("running", "train")  # that one has no lag
    await finished(ready, foreign)
    assert stands(await ready.advance(first)) == ("succeeded", "done")


async def test_the_reference_is_the_newest_version(ready: Any) -> None:
    first, second = await ready.new_run(count=2, lag=1)
    await to_training(ready, first)
    await answered(ready, second)
    version = await finished(ready, first)
    await ready.advance(second)
    async with ready.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, second, Stage.MODEL))
    assert (plan.parent, plan.about["parent"], plan.about["lag"]) == (version, version, 1)


async def test_a_bootstrap_is_never_overlapped(world: Any) -> None:
    """M0 can neither answer nor judge."""
    await world.with_base()
    await world.add_prompts("one")
    await world.add_ranked(*(ranked_prompt(f"about {t}", "good", "poor") for t in "abcd"))
    bootstrap, first = await world.new_run(bootstrap={}, lag=1)
    await world.rows(
        "UPDATE iterations SET state = 'running', phase = 'train', base_version_id = 'base',"
        " trains_version_id = 'base' WHERE id = :i RETURNING 1",
        i=bootstrap,
    )
    assert stands(await world.advance(first)) == ("queued", "waiting")
    assert (await world.iteration(bootstrap)).max_lag == 0
