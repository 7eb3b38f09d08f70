"""What Postgres refuses of answers that are older than the model that is trained on them."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from rewardloop.store.models import PreferencePairRow, Response
from tests.integration.refusals import has_versions, pair, refused, response, stored


async def test_one_that_may_lag_leaves_the_engines_to_others_while_it_trains(world: Any) -> None:
    await world.with_base()
    await world.add_prompts("one")
    first, second = await world.new_run(count=2, lag=1)
    run = "UPDATE iterations SET state = 'running', phase = :phase WHERE id = :i RETURNING 1"
    await world.rows(run, phase="train", i=first)
    await world.rows(run, phase="rollout", i=second)
    with pytest.raises(IntegrityError, match="one_on_the_engines"):
        await world.rows(run, phase="swap", i=first)
    with pytest.raises(IntegrityError, match="one_training"):
        await world.rows(run, phase="train", i=second)
    await world.rows(run, phase="pairing", i=second)
    await world.rows(run, phase="swap", i=first)


@pytest.fixture
async def lagging(world: Any) -> UUID:
    """An iteration that may lag and trains no version yet; there are "base", its child "m2" and
    that one's child "m3"."""
    await world.with_base()
    await world.publish("m2", "base")
    await world.publish("m3", "m2")
    await world.add_prompts("one")
    (made,) = await world.new_run(lag=1)
    await has_versions(world, made, answers="base", trains=None)
    for index in (0, 1):
        await stored(world, Response, response(made, 1, index))
    return made


async def test_no_pair_is_stored_before_its_lag_is_known(world: Any, lagging: UUID) -> None:
    for lag in (0, 1):
        row = pair(lagging, lag=lag)
        await refused(world, PreferencePairRow, row, "answers_within_the_lag")
    await has_versions(world, lagging, answers="base", trains="m2")
    row = pair(lagging, lag=0)
    await refused(world, PreferencePairRow, row, "answers_within_the_lag")
    await stored(world, PreferencePairRow, pair(lagging, lag=1))
    with pytest.raises(IntegrityError, match="answers_within_the_lag"):  # it has pairs now
        await has_versions(world, lagging, answers="m2", trains="m2")


async def test_answers_two_versions_old_are_refused(world: Any, lagging: UUID) -> None:
    with pytest.raises(IntegrityError, match="a_lag_is_one_version"):
        await has_versions(world, lagging, answers="base", trains="m3")
    with pytest.raises(IntegrityError, match="a_lag_is_one_version"):
        await has_versions(world, lagging, answers="m3", trains="m2")
    await has_versions(world, lagging, answers="m2", trains="m3")
    assert await world.value("SELECT lag FROM iterations") == 1
    row = pair(lagging, lag=1, weight_version="m2")  # "base" wrote it
    await refused(world, PreferencePairRow, row, "chosen_answers_this_prompt")
    row = pair(lagging, lag=1)
    await refused(world, PreferencePairRow, row, "answers_within_the_lag")


async def test_without_a_lag_answers_are_those_of_what_is_trained(world: Any) -> None:
    await world.with_base()
    await world.publish("m2", "base")
    await world.add_prompts("one")
    (only,) = await world.new_run()
    with pytest.raises(IntegrityError, match="lag_within_its_bound"):
        await has_versions(world, only, answers="base", trains="m2")
