"""Rows that Postgres takes, to be changed until it refuses them."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from rewardloop.store.models import Base
from tests.integration.rows import response_row


async def has_versions(world: Any, iteration_id: UUID, *, answers: str, trains: str | None) -> None:
    await world.rows(
        "UPDATE iterations SET base_version_id = :answers, trains_version_id = :trains"
        " WHERE id = :i RETURNING 1",
        answers=answers,
        trains=trains,
        i=iteration_id,
    )


def response(iteration_id: UUID, prompt_id: int, index: int, /, **change: Any) -> dict[str, Any]:
    return response_row(iteration_id, prompt_id, index) | change


def pair(iteration_id: UUID, /, **change: Any) -> dict[str, Any]:
    return {
        "iteration_id": iteration_id,
        "prompt_id": 1,
        "chosen_response_id": 1,
        "rejected_response_id": 2,
        "chosen_score": 4.0,
        "rejected_score": 1.0,
        "weight_version": "base",
        "lag": 0,
    } | change


async def refused(world: Any, table: type[Base], row: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        await stored(world, table, row)


async def stored(world: Any, table: type[Base], row: dict[str, Any]) -> None:
    async with world.store.transaction() as session:
        await session.execute(insert(table).values(row))
