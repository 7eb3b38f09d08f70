"""Training prompts that a run is measured by are left out, counted, and told."""

from typing import Any

import pytest

from rewardloop.errors import InvalidInput
from rewardloop.records import Message, PromptRecord
from rewardloop.store import contamination, prompts
from rewardloop.store.models import Iteration
from tests.integration.conftest import ranked_prompt

EVALUATION = {"num_prompts": 2}
STOPPING = {"early_stopping": {"num_prompts": 1}}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


async def add(world: Any, dataset: str, *conversations: list[Message]) -> None:
    records = [PromptRecord(tuple(turns), "an answer", "test") for turns in conversations]
    async with world.store.transaction() as session:
        await prompts.add(session, dataset, records)


async def taken(world: Any) -> list[str]:
    rows = await world.rows(
        "SELECT p.messages->-1->>'content' AS asked FROM iteration_prompts i"
        " JOIN prompts p ON p.id = i.prompt_id ORDER BY p.id"
    )
    return [row["asked"] for row in rows]


@pytest.fixture
async def overlapping(world: Any) -> Any:
    """Five prompts to train on: two of the evaluation, one of the validation, two of neither."""
    await world.with_base()
    system: Message = {"role": "system", "content": "Be brief."}
    answer: Message = {"role": "assistant", "content": "Hello."}
    await add(
        world,
        "seed",
        [user("Why is the caf\u00e9  closed?\n")],
        [system, user("hi"), answer, user("how do TIDES work?")],
        [user("mine alone")],
        [user("How many bees?")],
        [user("mine too")],
    )
    await add(world, "evaluation", [user("why is the Cafe\u0301 closed?")])
    await add(world, "evaluation", [user("How do tides work?")])
    await add(world, "validation", [system, user(" How many bees? ")])
    return world


async def test_they_are_passed_over_whatever_their_case_blanks_history_and_unicode_form(
    overlapping: Any,
) -> None:
    (iteration_id,) = await overlapping.new_run(
        prompts={"num_per_iteration": 5}, evaluation=EVALUATION, training=STOPPING
    )
    assert await taken(overlapping) == ["mine alone", "mine too"]
    iteration = await overlapping.iteration(iteration_id)
    assert iteration.report["contamination"] == {
        "dataset": "seed",
        "num_prompts": 5,
        "num_left_out": 3,
        "num_kept": 0,
        "held_out": 0,
        "evaluation": {"evaluation": 2, "validation": 1},
    }


async def test_only_the_datasets_that_the_run_names_count(overlapping: Any) -> None:
    (iteration_id,) = await overlapping.new_run(prompts={"num_per_iteration": 5})
    assert len(await taken(overlapping)) == 5
    assert (await overlapping.iteration(iteration_id)).report == {}


async def test_another_name_of_the_evaluation_dataset_counts_as_well(overlapping: Any) -> None:
    await overlapping.add_prompts("mine alone", dataset="exam")
    await overlapping.new_run(
        prompts={"num_per_iteration": 5}, evaluation={"dataset": "exam", "num_prompts": 1}
    )
    assert "mine alone" not in await taken(overlapping)
    assert len(await taken(overlapping)) == 4


async def test_they_are_trained_on_where_the_config_asks_for_it_and_still_counted(
    overlapping: Any,
) -> None:
    (iteration_id,) = await overlapping.new_run(
        prompts={"num_per_iteration": 5, "allow_evaluation_prompts": True},
        evaluation=EVALUATION,
    )
    assert len(await taken(overlapping)) == 5
    found = (await overlapping.iteration(iteration_id)).report["contamination"]
    assert (found["num_left_out"], found["num_kept"]) == (0, 2)


async def test_a_dataset_of_evaluation_prompts_alone_is_refused(world: Any) -> None:
    await world.with_base()
    for dataset in ("seed", "evaluation"):
        await world.add_prompts("one", "two", dataset=dataset)
    with pytest.raises(InvalidInput, match=r"every one of the 2 prompts of the dataset 'seed'"):
        await world.new_run(evaluation=EVALUATION)
    with pytest.raises(InvalidInput, match=r"prompts\.allow_evaluation_prompts"):
        await world.new_run(prompts={"dataset": "evaluation"}, evaluation=EVALUATION)


async def test_iterations_go_round_what_is_left(overlapping: Any) -> None:
    await overlapping.new_run(
        count=3, prompts={"num_per_iteration": 1}, evaluation=EVALUATION, training=STOPPING
    )
    assert await taken(overlapping) == ["mine alone", "mine alone", "mine too"]


async def test_whoever_starts_a_run_is_told(overlapping: Any) -> None:
    config = {"prompts": {"num_per_iteration": 5}, "evaluation": EVALUATION}
    async with overlapping.api() as api:
        run = (await api.post("/v1/runs", json=config, params={"iterations": 2})).json()
        more = (await api.post(f"/v1/runs/{run['id']}/iterations", json={})).json()
    told = (
        "this run is also measured by 2 of the 5 prompts of 'seed' (2 in 'evaluation'); "
        "left out of training: 2"
    )
    assert run["notes"] == [told]
    assert more["notes"] == [told]


async def test_shots_for_the_prompt_model_are_none_of_them(overlapping: Any) -> None:
    config = {"prompts": {"self_instruct": {"num_human_shots": 1}}, "evaluation": EVALUATION}
    (iteration_id,) = await overlapping.new_run(**config)
    assert (await overlapping.iteration(iteration_id)).report["contamination"]["num_left_out"] == 2
    await overlapping.rows(
        "DELETE FROM prompts WHERE messages->-1->>'content' LIKE 'mine%' RETURNING 1"
    )
    await overlapping.rows(
        "DELETE FROM prompts WHERE messages->-1->>'content' LIKE '%bees%' RETURNING 1"
    )
    with pytest.raises(InvalidInput, match="no prompt of a single turn"):
        await overlapping.new_run(**config)


async def test_a_bootstrap_neither_imitates_nor_judges_them(world: Any) -> None:
    await world.with_base()
    await world.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(8)))
    await world.add_prompts("  TOPIC 3", "else", dataset="evaluation")
    await world.add_prompts("topic 5", dataset="validation")
    await world.add_prompts("something", "other")
    bootstrap, _ = await world.new_run(
        bootstrap={"share_rankings": True}, evaluation=EVALUATION, training=STOPPING
    )
    split = await world.rows(
        "SELECT p.messages->0->>'content' AS asked FROM ranked_splits s"
        " JOIN prompts p ON p.id = s.prompt_id ORDER BY p.id"
    )
    assert [row["asked"] for row in split] == [f"topic {n}" for n in (0, 1, 2, 4, 6, 7)]
    report = (await world.iteration(bootstrap)).report["contamination"]
    assert (report["dataset"], report["num_left_out"]) == ("ranked", 2)
    await world.advance(bootstrap)
    imitated = await world.rows(
        "SELECT p.messages->0->>'content' AS asked FROM ift_examples e"
        " JOIN prompts p ON p.id = e.prompt_id"
    )
    assert len(imitated) == 6 - await world.value(
        "SELECT count(*) FROM ranked_splits WHERE held_out"
    )
    assert not {"topic 3", "topic 5"} & {row["asked"] for row in imitated}


async def test_what_is_held_out_is_never_trained_on_in_any_spelling(world: Any) -> None:
    await world.with_base()
    await world.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(8)))
    await world.add_prompts(*(f"Topic {n} " for n in range(8)), "free")
    config = {"prompts": {"num_per_iteration": 9, "allow_evaluation_prompts": True}}
    _, improve = await world.new_run(bootstrap={}, **config)
    held_out = await world.rows(
        "SELECT p.messages->0->>'content' AS asked FROM ranked_splits s"
        " JOIN prompts p ON p.id = s.prompt_id WHERE s.held_out"
    )
    refused = {f"T{row['asked'][1:]} " for row in held_out}
    assert refused
    assert set(await taken(world)) == {*(f"Topic {n} " for n in range(8)), "free"} - refused
    found = (await world.iteration(improve)).report["contamination"]
    assert found["held_out"] == found["num_left_out"] == len(refused)


def test_what_is_kept_and_left_out_is_said_in_one_sentence() -> None:
    found = {
        "dataset": "seed",
        "num_prompts": 9,
        "num_left_out": 1,
        "num_kept": 3,
        "held_out": 1,
        "evaluation": {"evaluation": 3, "validation": 0},
    }
    iterations = [Iteration(report={contamination.SUBJECT: found}) for _ in range(2)]
    assert contamination.told([*iterations, Iteration(report={})]) == [
        "this run is also measured by 4 of the 9 prompts of 'seed' (3 in 'evaluation', 1 in the "
        "held-out rankings); left out of training: 1, trained on anyway: 3"
    ]


async def test_prompts_that_ask_one_question_are_held_out_together(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("something")
    spellings = ["yes?", "Yes?", "YES?", "yes ?"]
    asked = [f"{n} {spelling}" for n in range(4) for spelling in spellings]
    await world.add_ranked(*(ranked_prompt(content, "good", "poor") for content in asked))
    await world.new_run(bootstrap={"eft": {"held_out_fraction": 0.5}, "share_rankings": True})
    split = await world.rows(
        "SELECT DISTINCT p.question_sha256, s.held_out FROM ranked_splits s"
        " JOIN prompts p ON p.id = s.prompt_id"
    )
    assert len(split) == len({row["question_sha256"] for row in split})
    assert {row["held_out"] for row in split} == {True, False}
    assert await world.value("SELECT count(*) FROM ranked_splits") == len(asked)


async def test_spellings_of_three_questions_are_too_few_to_split(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("something")
    asked = ["one", "One", "ONE", "two", "three"]
    await world.add_ranked(*(ranked_prompt(content, "good", "poor") for content in asked))
    with pytest.raises(InvalidInput, match="has 3 prompts with human-ranked responses"):
        await world.new_run(bootstrap={})
