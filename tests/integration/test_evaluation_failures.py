"""Evaluations that fail, that are overtaken, and that go on."""

from datetime import timedelta
from typing import Any

import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.errors import Conflict, NotFound, UpstreamUnavailable
from rewardloop.store import evaluations, failures
from services.generator.stub_engine import Faults
from services.worker.swap import bring_to
from tests.integration.evaluated import (
    asked_for,
    num_stored,
    stored,
    with_two_versions,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_two_versions(world)


async def test_an_evaluation_goes_on_after_a_failure(ready: Any) -> None:
    engine = ready.serve_generator()  # and no judge
    evaluation_id = await asked_for(ready)
    with pytest.raises(UpstreamUnavailable):
        await ready.evaluate(evaluation_id)
    waiting = await stored(ready, evaluation_id)
    assert (waiting.state, waiting.error) == ("running", None)
    assert waiting.failing_since is not None
    assert await num_stored(ready) == (16, 0)
    ready.serve_judge()
    await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "succeeded"
    assert await num_stored(ready) == (16, 16)
    assert engine.num_requests == 32


async def test_an_evaluation_that_keeps_failing_fails_and_lets_others_start(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation_id = await asked_for(ready)
    (behind,) = await ready.new_run()
    with pytest.raises(UpstreamUnavailable):
        await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "running"
    monkeypatch.setattr(failures, "MAX_FAILING", timedelta(0))
    with pytest.raises(UpstreamUnavailable):
        await ready.evaluate(evaluation_id)
    failed = await stored(ready, evaluation_id)
    assert failed.state == "failed"
    assert ready.settings.generator_urls[0] in failed.error
    ready.serve_generator()
    assert (await ready.advance(behind)).phase == "rollout"


async def test_no_answer_is_stored_under_a_version_that_did_not_write_it(ready: Any) -> None:
    """After a failed swap a replica may hold another version than the one marked as served."""
    ready.serve_judge()
    await ready.publish("stray", parent="base")
    ready.serve_generator("stray")
    evaluation_id = await asked_for(ready, "base", "new")
    await ready.evaluate(evaluation_id)
    answers = await ready.rows("SELECT version_id, text FROM evaluation_answers")
    assert len(answers) == 2 * 8
    assert all(row["text"].startswith(f"[{row['version_id']}] ") for row in answers)


async def test_an_answer_of_another_version_than_asked_is_tried_again(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that restarts while an evaluation asks it comes back with what is marked."""
    ready.serve()

    async def nothing(*_: Any) -> list[Any]:
        return []

    evaluation_id = await asked_for(ready)
    with monkeypatch.context() as patched:
        patched.setattr("services.worker.evaluate.bring_to", nothing)
        with pytest.raises(UpstreamUnavailable, match="base answered where new was asked"):
            await ready.evaluate(evaluation_id)
    assert await num_stored(ready) == (0, 0)
    await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "succeeded"


async def test_an_evaluation_that_is_over_marks_no_version_as_served(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose lock died with its connection comes back late."""
    ready.serve()
    evaluation_id = await asked_for(ready)

    async def overtaken(*args: Any) -> Any:
        found = await bring_to(*args)
        async with ready.store.transaction() as session:
            await evaluations.note_failure(session, evaluation_id, NotFound("for this test"))
        return found

    monkeypatch.setattr("services.worker.evaluate.bring_to", overtaken)
    with pytest.raises(Conflict, match="has failed without this process"):
        await ready.evaluate(evaluation_id)
    assert await ready.serving() == "base"
    assert (await stored(ready, evaluation_id)).error == "for this test"


async def test_an_unforeseen_error_is_counted(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise KeyError("weights")

    monkeypatch.setattr("services.worker.evaluate.bring_to", broken)
    evaluation_id = await asked_for(ready)
    with pytest.raises(KeyError):
        await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).failing_since is not None
    monkeypatch.setattr(failures, "MAX_FAILING", timedelta(0))
    with pytest.raises(KeyError):
        await ready.evaluate(evaluation_id)
    failed = await stored(ready, evaluation_id)
    assert (failed.state, failed.error) == ("failed", "KeyError: 'weights'")


async def test_an_evaluation_that_answers_something_goes_on(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator goes away again and again, and some get done each time: no standstill."""
    ready.serve()
    monkeypatch.setattr("services.worker.evaluate.MAX_IN_FLIGHT", 1)
    sample, left = GeneratorClient.sample, [0]

    async def away_after_two(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise UpstreamUnavailable("away")
        return await sample(*args, **kwargs)

    monkeypatch.setattr(GeneratorClient, "sample", away_after_two)
    evaluation_id = await asked_for(ready)
    since = set()
    for _ in range(3):
        left[0] = 2
        with pytest.raises(UpstreamUnavailable):
            await ready.evaluate(evaluation_id)
        since.add((await stored(ready, evaluation_id)).failing_since)
    assert len(since - {None}) == 3


async def test_an_evaluation_whose_time_is_up_sends_for_a_successor(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.serve(Faults(latency_seconds=1.5))
    evaluation_id = await asked_for(ready)
    await ready.lose_messages()
    monkeypatch.setattr("services.worker.evaluate.WORK_SECONDS", 1.2)  # less than one answer
    monkeypatch.setattr("services.worker.evaluate.MAX_IN_FLIGHT", 3)
    for num_answers in (3, 6, 8):
        await ready.evaluate(evaluation_id)
        assert (await num_stored(ready))[0] == num_answers + 3 * (num_answers == 8)
        assert ready.messages("control") == 1
        await ready.lose_messages()
    assert (await stored(ready, evaluation_id)).state == "running"
