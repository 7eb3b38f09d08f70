"""IFT and EFT share no prompt, as in the paper, unless `bootstrap.share_rankings`."""

from typing import Any

import pytest

from rewardloop.records import PromptRecord, Stage
from rewardloop.store import prompts, training
from services.trainer.plan import plan_of
from tests.integration.conftest import ranked_prompt

TOPICS = ["tides", "bread", "chess", "rivers", "clocks", "bees", "glass", "kites"]


@pytest.fixture
async def ready(world: Any) -> Any:
    """M0, a prompt to train on, and 8 ranked prompts: 2 are held out, 6 are left."""
    await world.with_base()
    await world.add_prompts("one")
    await world.add_ranked(*(ranked_prompt(t, f"best {t}", "poor") for t in TOPICS))
    return world


async def add_unranked(world: Any, *contents: str) -> None:
    records = [
        PromptRecord(({"role": "user", "content": content},), "an answer", "test")
        for content in contents
    ]
    async with world.store.transaction() as session:
        await prompts.add(session, "ranked", records)


async def in_split(world: Any, *, held_out: bool) -> set[str]:
    rows = await world.rows(
        "SELECT messages->-1->>'content' AS text FROM prompts"
        " JOIN ranked_splits s ON s.prompt_id = prompts.id WHERE s.held_out = :h",
        h=held_out,
    )
    return {row["text"] for row in rows}


async def ift_of(world: Any, run: dict[str, Any] | None = None, **bootstrap: Any) -> set[str]:
    """The prompts that the baseline of a new run learns from."""
    iteration, _ = await world.new_run(**(run or {}), bootstrap=bootstrap)
    await world.advance(iteration)
    async with world.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, iteration, Stage.BASELINE))
    return {example["prompt"][-1]["content"] for example in plan.task["examples"]}


async def test_no_prompt_is_an_ift_example_and_a_judge_task(ready: Any) -> None:
    ift = await ift_of(ready)
    judged, held_out = await in_split(ready, held_out=False), await in_split(ready, held_out=True)
    assert (len(ift), len(judged), len(held_out)) == (3, 3, 2)
    assert ift | judged | held_out == set(TOPICS)


async def test_shared_rankings_are_both(ready: Any) -> None:
    ift = await ift_of(ready, share_rankings=True)
    assert len(ift) == 6
    assert ift == await in_split(ready, held_out=False)


async def test_unranked_prompts_with_a_reference_come_first(ready: Any) -> None:
    """Two of three wanted examples are there, so IFT lacks one ranked prompt."""
    await add_unranked(ready, "alone", "apart")
    ift = await ift_of(ready, max_ift_examples=3)
    assert {"alone", "apart"} < ift
    assert len(ift) == 3
    assert len(await in_split(ready, held_out=False)) == 5


async def test_evaluation_prompts_do_not_count_among_what_ift_has(ready: Any) -> None:
    """Of three wanted examples one is there, so IFT lacks two ranked prompts."""
    await add_unranked(ready, "alone", "apart")
    await ready.add_prompts("alone", dataset="evaluation")
    ift = await ift_of(ready, {"evaluation": {}}, max_ift_examples=3)
    assert "apart" in ift
    assert "alone" not in ift
    assert len(ift) == 3
    assert len(await in_split(ready, held_out=False)) == 4


async def test_the_best_of_bad_answers_is_no_ift_example(ready: Any) -> None:
    """Humans called all answers to `tides` bad; the order is judged all the same."""
    await ready.rows(
        "UPDATE ranked_responses SET imitate = false WHERE text LIKE '%tides' RETURNING 1"
    )
    await ready.rows("UPDATE prompts SET reference = NULL RETURNING 1")
    shared = await ift_of(ready, share_rankings=True)
    assert shared == await in_split(ready, held_out=False) - {"tides"}
    for seed in range(4):
        await ready.rows("DELETE FROM ranked_splits RETURNING 1")
        await ready.new_run(seed=seed, bootstrap={})
        split = await in_split(ready, held_out=False) | await in_split(ready, held_out=True)
        assert "tides" in split
        assert len(split) == 5


async def test_a_reference_is_imitated_where_all_ranked_answers_are_bad(ready: Any) -> None:
    await ready.rows("UPDATE ranked_responses SET imitate = false RETURNING 1")
    iteration, _ = await ready.new_run(bootstrap={"share_rankings": True})
    await ready.advance(iteration)
    answers = await ready.rows("SELECT DISTINCT answer FROM ift_examples")
    assert [row["answer"] for row in answers] == ["\u2026"]


async def test_a_reference_that_humans_called_bad_later_is_not_imitated(ready: Any) -> None:
    """It came with an earlier file, and stands in a ranking of bad answers now."""
    await ready.rows("UPDATE ranked_responses SET imitate = false RETURNING 1")
    await ready.rows("UPDATE prompts SET reference = E'poor\\n' RETURNING 1")
    await add_unranked(ready, "alone")
    assert await ift_of(ready, share_rankings=True) == {"alone"}


async def test_eft_takes_every_ranking_where_ift_lacks_nothing(ready: Any) -> None:
    await add_unranked(ready, "alone", "apart")
    assert await ift_of(ready, max_ift_examples=2) == {"alone", "apart"}
    assert len(await in_split(ready, held_out=False)) == 6


async def test_m1_learns_its_judge_tasks_from_prompts_that_ift_has_not(ready: Any) -> None:
    ready.serve()
    eft = {"judging": {"num_judgements": 4}}
    iteration, _ = await ready.new_run(bootstrap={"eft": eft})
    await ready.bootstrap(iteration)
    rows = await ready.rows(
        "SELECT DISTINCT p.messages->-1->>'content' AS text FROM eft_examples e"
        " JOIN ranked_judgements j ON j.id = e.ranked_judgement_id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " JOIN prompts p ON p.id = r.prompt_id"
    )
    async with ready.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, iteration, Stage.MODEL))
    texts = [example["prompt"][-1]["content"] for example in plan.task["examples"]]
    ift = set(texts) & set(TOPICS)
    assert rows
    assert len(ift) == 3
    assert not ift & {row["text"] for row in rows}


async def test_the_division_is_the_seeds(ready: Any) -> None:
    async def judged(seed: int) -> set[int]:
        iteration, _ = await ready.new_run(seed=seed, bootstrap={})
        rows = await ready.rows(
            "SELECT prompt_id FROM ranked_splits s JOIN iterations i ON i.run_id = s.run_id"
            " WHERE i.id = :i AND NOT held_out",
            i=iteration,
        )
        return {row["prompt_id"] for row in rows}

    found = [await judged(seed) for seed in (1, 1, 2, 3, 4)]
    assert found[0] == found[1]
    assert any(other != found[0] for other in found[2:])
