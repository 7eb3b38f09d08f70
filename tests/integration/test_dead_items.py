"""Ranked responses, answers, comparisons and new prompts that fail each time: the others go on,
and the phase ends without them, within the share."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.store import dead_prompts, evaluations
from services.generator.stub_engine import Faults
from tests.integration.conftest import ranked_prompt

TOPICS = ["tides", "bread", "chess", "rivers", "clocks", "bees", "glass"]
BOOTSTRAP = {
    "share_rankings": True,
    "eft": {"judging": {"num_judgements": 2}, "held_out_fraction": 0.25},
}
POISONED = Faults(heeds_poison=True)


@pytest.fixture
async def ready(world: Any) -> Any:
    world.monkeypatch.setattr("rewardloop.store.pauses.FIRST_SECONDS", 0.02)
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


async def until_judged(world: Any, num_bad: int) -> tuple[UUID, Any]:
    """A bootstrap whose baseline shall judge: `num_bad` responses cannot be."""
    for number, topic in enumerate(TOPICS):
        good = f"good {topic} [poison 500]" if number < num_bad else f"good {topic}"
        await world.add_ranked(ranked_prompt(f"about {topic}", good, f"poor {topic}"))
    (bootstrap, _) = await world.new_run(bootstrap=BOOTSTRAP)
    engine = world.serve(POISONED)
    await world.advance(bootstrap)
    await world.train(bootstrap)
    assert (await world.advance(bootstrap)).phase == "judge_ranked"
    return bootstrap, engine


async def test_a_ranked_response_that_cannot_be_judged_is_left_out_and_told(ready: Any) -> None:
    bootstrap, _ = await until_judged(ready, num_bad=1)
    await ready.assess(bootstrap)
    after = await ready.advance(bootstrap)
    assert after.phase == "train"
    ((of_what, told),) = after.report["dead_ranked_responses"].items()
    assert of_what in ("eft free", "health free")
    assert (told["num_dead"], told["max_dead"]) == (1, 1)
    assert "EngineCore" in told["error"]
    judged = await ready.value("SELECT count(DISTINCT ranked_response_id) FROM ranked_judgements")
    assert judged == 2 * len(TOPICS) - 1
    async with ready.api() as api:
        found = (await api.get(f"/v1/iterations/{bootstrap}/dead-prompts")).json()
    ((dead),) = found["ranked_responses"]
    assert dead["item"].startswith("ranked response ")
    assert (found["items"], dead["num_attempts"]) == ([], 3)


async def test_too_many_of_them_fail_the_bootstrap_until_they_are_tried_again(ready: Any) -> None:
    bootstrap, engine = await until_judged(ready, num_bad=len(TOPICS))
    with pytest.raises(Exception, match="ranked responses are dead"):
        await ready.assess(bootstrap)
    failed = await ready.iteration(bootstrap)
    assert (failed.state, failed.error_kind) == ("failed", "too-many-dead")
    assert f"`rewardloop retry-prompts {bootstrap}`" in failed.error
    kept = await ready.value("SELECT count(*) FROM ranked_judgements")
    assert kept > 0
    engine.faults = Faults()
    async with ready.store.transaction() as session:
        retried = await dead_prompts.retry(session, bootstrap)
    assert retried.num_ranked_responses > 1
    assert (await ready.advance(bootstrap)).phase == "judge_ranked"
    await ready.assess(bootstrap)
    assert (await ready.advance(bootstrap)).phase == "train"
    judged = await ready.value("SELECT count(DISTINCT ranked_response_id) FROM ranked_judgements")
    assert judged == 2 * len(TOPICS)


async def evaluated(world: Any, *bad: str) -> Any:
    await world.publish("new", parent="base")
    await world.add_prompts(*bad, *(f"question {n}" for n in range(6)), dataset="evaluation")
    async with world.store.transaction() as session:
        made = await evaluations.create(session, "new", "base", EvaluationConfig())
    world.serve(POISONED)
    await world.evaluate(made.id)
    async with world.store.transaction() as session:
        return await evaluations.get(session, made.id)


async def test_an_answer_that_fails_each_time_leaves_its_prompt_out(ready: Any) -> None:
    done = await evaluated(ready, "[poison html] bad")
    assert done.state == "succeeded"
    assert (done.result["num_prompts"], done.result["num_dead_answers"]) == (6, 2)
    assert done.result["num_dead_comparisons"] == 0
    assert await ready.value("SELECT count(*) FROM evaluation_answers") == 12


async def test_a_comparison_that_fails_each_time_leaves_its_prompt_undecided(ready: Any) -> None:
    # A comparison's prompt quotes the question; a judgement's poison does not touch it.
    ready.monkeypatch.setattr("services.generator.stub_faults.POISONED_VERDICT", "Better")
    done = await evaluated(ready, "[poison judge 500] bad")
    assert done.state == "succeeded"
    assert (done.result["num_dead_answers"], done.result["num_dead_comparisons"]) == (0, 2)
    assert done.result["num_undecided"] >= 1
    assert await ready.value("SELECT count(*) FROM comparisons") == 12


async def test_too_many_of_them_fail_the_evaluation_and_say_why(ready: Any) -> None:
    with pytest.raises(Exception, match="2 of 8 prompts are dead"):
        await evaluated(ready, "[poison 500] bad", "[poison cut] worse")
    (row,) = await ready.rows("SELECT state, error FROM evaluations")
    assert row["state"] == "failed"
    assert "Mend the cause" in row["error"]


async def test_new_prompts_that_cannot_be_written_are_counted_as_failed(ready: Any) -> None:
    """The poison is in one of 43 human shots, of which each request shows 6."""
    shots = [f"Tell me what {t} mean in chapter {n} please" for t in TOPICS for n in range(6)]
    await ready.add_prompts("Say [poison 500] and then stop", *shots, dataset="shots")
    (only,) = await ready.new_run(
        prompts={"dataset": "shots", "num_per_iteration": 12, "self_instruct": {"max_words": 40}}
    )
    ready.serve(POISONED)
    await ready.advance(only)
    await ready.write_prompts(only)
    after = await ready.advance(only)
    assert after.phase == "rollout"
    found = after.report["prompts"]
    assert found["num_accepted"] == 12
    assert found["rejected"].get("failed", 0) > 0
    rows = await ready.rows("SELECT detail FROM candidate_prompts WHERE reason = 'failed'")
    assert all("EngineCore" in row["detail"] for row in rows)
