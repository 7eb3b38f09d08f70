"""Listing dead prompts over REST, and trying them again until an iteration is whole."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from services.generator.stub_engine import Faults

BAD = ("[poison 500] one", "[poison 500] two", "[poison html] three")


@pytest.fixture
async def failed(world: Any) -> tuple[UUID, Any]:
    """A failed iteration with three dead prompts of nine, and the engine that serves it."""
    world.monkeypatch.setattr("rewardloop.store.pauses.FIRST_SECONDS", 0.02)
    await world.with_base()
    await world.add_prompts(*BAD, *(f"question {number}" for number in range(6)))
    (made,) = await world.new_run(prompts={"num_per_iteration": 9})
    engine = world.serve(Faults(heeds_poison=True))
    await world.advance(made)
    await world.roll_out(made)
    assert (await world.advance(made)).state == "failed"
    return made, engine


async def test_dead_prompts_are_listed_page_by_page(world: Any, failed: Any) -> None:
    made, _ = failed
    async with world.api() as api:
        first = (await api.get(f"/v1/iterations/{made}/dead-prompts?limit=2")).json()
        rest = (await api.get(f"/v1/iterations/{made}/dead-prompts?limit=2&after=2")).json()
        counts = (await api.get(f"/v1/iterations/{made}")).json()["counts"]
    assert [item["prompt_id"] for item in first["items"]] == [1, 2]
    assert (first["next_after"], rest["next_after"]) == (2, None)
    (third,) = rest["items"]
    assert third["messages"] == [{"role": "user", "content": BAD[2]}]
    assert (third["error_kind"], third["num_attempts"]) == ("unreadable-answer", 3)
    assert (counts["prompts"], counts["prompts_done"], counts["prompts_dead"]) == (9, 6, 3)
    assert counts["responses"] == counts["responses_expected"] == 24


async def test_an_iteration_is_whole_after_its_dead_prompts_were_tried_again(
    world: Any, failed: Any
) -> None:
    made, engine = failed
    engine.faults = Faults()
    path = f"/v1/iterations/{made}/dead-prompts/retry"
    async with world.api() as api:
        some = (await api.post(path, json={"prompt_ids": [1, 9, 4711]})).json()
        assert some == {"prompt_ids": [1], "num_ranked_responses": 0}
        assert (await api.post(path, json={"prompt_ids": [1]})).json()["prompt_ids"] == []
        rest = (await api.post(path)).json()
        assert rest["prompt_ids"] == [2, 3]
        assert (await api.post(path)).json()["prompt_ids"] == []
    stored = await world.rows("SELECT id FROM responses")
    assert (await world.advance(made)).phase == "rollout"  # it was queued by the first retry
    await world.roll_out(made)
    after = await world.advance(made)
    assert (after.phase, "dead_prompts" in after.report) == ("train", False)
    states = await world.rows("SELECT DISTINCT state, num_attempts FROM iteration_prompts")
    assert states == [{"state": "done", "num_attempts": 0}]
    whole = await world.rows("SELECT id FROM responses")
    assert len(whole) == 36
    assert all(row in whole for row in stored)
    async with world.api() as api:
        answer = await api.post(path)
    assert (answer.status_code, answer.json()["title"]) == (409, "conflict")


async def test_a_retry_of_an_iteration_that_failed_of_them_tries_them_again(
    world: Any, failed: Any
) -> None:
    """Else it would fail again at once."""
    made, engine = failed
    engine.faults = Faults()
    async with world.api() as api:
        view = (await api.post(f"/v1/iterations/{made}/retry")).json()
    assert (view["state"], view["counts"]["prompts_dead"]) == ("queued", 0)
    assert (await world.advance(made)).phase == "rollout"
    await world.roll_out(made)
    assert (await world.advance(made)).phase == "train"
    assert await world.value("SELECT count(*) FROM responses") == 36


@pytest.mark.parametrize(
    "body",
    [{"prompt_ids": [2**63]}, {"prompt_ids": [-1]}, {"prompt_ids": "all"}, {"prompt_ids": [None]}],
)
async def test_what_can_be_no_prompts_id_is_refused(world: Any, body: Any) -> None:
    async with world.api() as api:
        answer = await api.post(f"/v1/iterations/{uuid4()}/dead-prompts/retry", json=body)
        assert answer.status_code == 422
        for query in (f"after={2**63}", "after=-1", "limit=0", "limit=1001"):
            found = await api.get(f"/v1/iterations/{uuid4()}/dead-prompts?{query}")
            assert found.status_code == 422


async def test_an_iteration_that_is_not_there_has_no_dead_prompts(world: Any) -> None:
    async with world.api() as api:
        assert (await api.get(f"/v1/iterations/{uuid4()}/dead-prompts")).status_code == 404
        assert (await api.post(f"/v1/iterations/{uuid4()}/dead-prompts/retry")).status_code == 404


async def test_the_database_counts_them_for_prometheus(world: Any, failed: Any) -> None:
    async with world.api() as api:
        text = (await api.get("/metrics")).text
    assert "rewardloop_stored_dead_prompts 3.0" in text
    assert 'rewardloop_stored_iterations{state="failed"} 1.0' in text
    assert 'rewardloop_stored_iterations{state="paused"} 0.0' in text
