"""A run over another run's answers."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.config import parse_run_config
from rewardloop.errors import Conflict, InvalidInput, NotFound
from rewardloop.store import runs
from tests.integration.conftest import ranked_prompt

SCORED = (
    "SELECT r.prompt_id, r.sample_index, r.text, j.judge_index, j.score FROM responses r"
    " JOIN judgements j ON j.response_id = r.id WHERE r.iteration_id = :i ORDER BY 1, 2, 4"
)


@pytest.fixture
async def rolled_out(world: Any) -> UUID:
    """An iteration of three prompts that is about to be trained."""
    await world.with_base()
    world.serve()
    await world.add_prompts("a", "b", "c")
    (iteration_id,) = await world.new_run(prompts={"num_per_iteration": 3})
    await world.advance(iteration_id)
    await world.roll_out(iteration_id)
    assert (await world.advance(iteration_id)).phase == "train"
    return iteration_id


async def fail(world: Any, iteration_id: UUID) -> None:
    """Free the engines for the next run."""
    await world.rows(
        "UPDATE iterations SET state = 'failed', error = 'test' WHERE id = :i RETURNING 1",
        i=iteration_id,
    )


async def test_another_policy_works_on_the_same_answers_and_asks_no_engine(
    world: Any, rolled_out: UUID
) -> None:
    source = (await world.iteration(rolled_out)).run_id
    await fail(world, rolled_out)
    policy = {"policy": {"kind": "several", "max_pairs_per_prompt": 2}}
    (again,) = await world.new_run(replay=str(source), pairing=policy)
    before = await world.value("SELECT count(*) FROM responses")
    await world.advance(again)
    await world.roll_out(again)
    replayed = await world.advance(again)
    assert replayed.phase == "train"
    assert await world.rows(SCORED, i=again) == await world.rows(SCORED, i=rolled_out)
    assert await world.value("SELECT count(*) FROM responses") == before == 24
    counts = await world.rows(
        "SELECT iteration_id, count(*) FROM preference_pairs GROUP BY 1 ORDER BY 2"
    )
    assert [row["iteration_id"] for row in counts] == [rolled_out, again]


async def test_the_resolved_config_says_what_the_replayed_run_decided(
    world: Any, rolled_out: UUID
) -> None:
    source = (await world.iteration(rolled_out)).run_id
    config = parse_run_config({"replay": str(source), "sampling": {"max_tokens": 9}})
    async with world.store.transaction() as session:
        run = await runs.create(session, config, {})
    assert run.base_version_id == run.config["base_version"] == "base"
    assert run.config["prompts"]["num_per_iteration"] == 3
    assert run.config["sampling"]["max_tokens"] == 512


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"replay": "00000000-0000-0000-0000-000000000000"}, NotFound, "no run"),
        ({"bootstrap": {}}, InvalidInput, "exclude each other"),
        ({"base_version": "another"}, InvalidInput, "leave it out"),
    ],
)
async def test_what_cannot_be_replayed_is_refused(
    world: Any, rolled_out: UUID, changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    source = (await world.iteration(rolled_out)).run_id
    config = parse_run_config({"replay": str(source), **changes})
    with pytest.raises(error, match=told):
        async with world.store.transaction() as session:
            await runs.create(session, config, {})


async def test_a_roll_out_that_is_not_complete_is_not_replayed(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("a")
    (iteration_id,) = await world.new_run(prompts={"num_per_iteration": 1})
    source = (await world.iteration(iteration_id)).run_id
    with pytest.raises(Conflict, match="no complete roll-out"):
        await world.new_run(replay=str(source))


async def test_a_replay_holds_out_what_the_replayed_run_holds_out(world: Any) -> None:
    """So that its versions are measured too, and on what none of them was trained on."""
    await world.with_base()
    world.serve()
    await world.add_ranked(*(ranked_prompt(f"about {n}", "good", "poor") for n in range(8)))
    prompts = {"dataset": "ranked", "num_per_iteration": 4}
    bootstrap, first = await world.new_run(bootstrap={}, prompts=prompts)
    await world.bootstrap(bootstrap)
    await world.improve(first)
    source = (await world.iteration(first)).run_id

    again, second = await world.new_run(count=2, replay=str(source))
    run_id = (await world.iteration(again)).run_id
    of_run = "SELECT prompt_id, held_out FROM ranked_splits WHERE run_id = :r ORDER BY 1"
    assert await world.rows(of_run, r=run_id) == await world.rows(of_run, r=source)
    trained_on_held_out = await world.rows(
        "SELECT 1 FROM iteration_prompts i JOIN ranked_splits s USING (prompt_id)"
        " WHERE i.iteration_id = :i AND s.held_out",
        i=second,
    )
    assert trained_on_held_out == []
    version = await world.improve(again)
    measured = await world.rows("SELECT metrics FROM assessments WHERE version_id = :v", v=version)
    assert [row["metrics"]["num_prompts"] for row in measured] == [2]


async def test_a_policy_that_does_not_go_with_the_replayed_prompts_is_refused(
    world: Any, rolled_out: UUID
) -> None:
    source = (await world.iteration(rolled_out)).run_id
    await world.rows(
        "UPDATE runs SET config = jsonb_set(config, '{prompts,self_instruct}', '{}') RETURNING 1"
    )
    with pytest.raises(InvalidInput, match=r"remove prompts\.self_instruct"):
        await world.new_run(replay=str(source), pairing={"policy": {"kind": "anchored"}})
