"""The migrations, up and down again, and the views that they promise."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import alembic.command
import alembic.config
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

import rewardloop.store
from rewardloop.records import Message
from rewardloop.store import Store
from rewardloop.store.models import (
    Base,
)
from rewardloop.store.prompts import conversation_digest, question_digest

VIEWS = {
    "response_scores": "run_id iteration prompt_id response_id sample_index response "
    "weight_version num_judgements num_scored score_mean score_stdev",
    "preference_dataset": "run_id iteration prompt_id pair_id prompt chosen_response_id "
    "rejected_response_id chosen rejected chosen_score rejected_score margin lag",
    "iteration_progress": "run_id iteration state phase prompts responses_expected responses "
    "judgements_expected judgements pairs",
}


@pytest.mark.parametrize("view", VIEWS)
async def test_the_public_views_have_exactly_these_columns(world: Any, view: str) -> None:
    columns = await world.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_name = :view"
        " ORDER BY ordinal_position",
        view=view,
    )
    assert [column["column_name"] for column in columns] == VIEWS[view].split()


@pytest.fixture
def empty_database(servers: Any) -> Iterator[str]:
    """The SQLAlchemy URL of a database without a schema."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(servers.database, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield servers.sqlalchemy_url.rpartition("/")[0] + f"/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def alembic_config(empty_database: str) -> alembic.config.Config:
    config = alembic.config.Config()
    folder = Path(rewardloop.store.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["database_url"] = empty_database
    return config


@pytest.fixture
def relations(empty_database: str) -> Iterator[Callable[[], set[str]]]:
    engine = create_engine(empty_database)

    def names() -> set[str]:
        with engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            )
            return set(found.scalars())

    yield names
    engine.dispose()


async def test_the_migrations_end_where_the_models_are(empty_database: str) -> None:
    store = Store(empty_database)
    await store.migrate()
    await store.migrate()  # again changes nothing
    await store.close()
    engine = create_engine(empty_database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_the_checks_of_the_migration_are_those_of_the_models(
    empty_database: str, alembic_config: alembic.config.Config
) -> None:
    """compare_metadata does not look at checks."""
    alembic.command.upgrade(alembic_config, "head")
    engine = create_engine(empty_database)
    query = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1, 2"
    )
    with engine.begin() as connection:
        migrated = connection.exec_driver_sql(query).all()
    alembic.command.downgrade(alembic_config, "base")
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        modelled = connection.exec_driver_sql(query).all()
    engine.dispose()
    assert migrated == modelled
    assert len(migrated) == 42


def test_downgrading_leaves_nothing(
    alembic_config: alembic.config.Config, relations: Callable[[], set[str]]
) -> None:
    alembic.command.upgrade(alembic_config, "head")
    assert {"responses", "response_scores", "one_on_the_engines"} <= relations()
    alembic.command.downgrade(alembic_config, "base")
    assert relations() <= {"alembic_version", "alembic_version_pkc"}
    alembic.command.upgrade(alembic_config, "head")


def test_prompts_of_before_are_filled_in(
    empty_database: str, alembic_config: alembic.config.Config
) -> None:
    """Of two rows that have become one conversation one keeps its digest."""
    alembic.command.upgrade(alembic_config, "0003")
    engine = create_engine(empty_database)
    asked = ["Caf\u00e9 ", " CAFE\u0301", "caf\u00e9", "cafe\u0301\n"]
    with engine.begin() as connection:
        for number, content in enumerate(asked):
            connection.exec_driver_sql(
                "INSERT INTO prompts (dataset, messages, messages_sha256, source)"
                " VALUES ('d', %s::jsonb, %s, 'test')",
                (json.dumps([{"role": "user", "content": content}]), f"old {number}"),
            )
    alembic.command.upgrade(alembic_config, "head")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT messages_sha256, question_sha256 FROM prompts ORDER BY id"
        ).all()
    engine.dispose()
    turns = [[Message(role="user", content=content)] for content in asked]
    digests = [conversation_digest(messages) for messages in turns]
    assert digests[2] == digests[3]
    assert [row[0] for row in rows] == [*digests[:3], "old 3"]
    assert {row[1] for row in rows} == {question_digest(turns[0])}


def test_a_downgrade_gives_prompts_their_old_digests(
    empty_database: str, alembic_config: alembic.config.Config
) -> None:
    """As 0003 wrote them: of the messages as they are."""
    turns = [[Message(role="user", content=content)] for content in ("hi", " hi", "Cafe\u0301\n")]
    old = [
        hashlib.sha256(json.dumps(t, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        for t in turns
    ]
    alembic.command.upgrade(alembic_config, "0003")
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        for messages, digest in zip(turns, old, strict=True):
            connection.exec_driver_sql(
                "INSERT INTO prompts (dataset, messages, messages_sha256, source)"
                " VALUES ('d', %s::jsonb, %s, 'test')",
                (json.dumps(messages), digest),
            )
    query = "SELECT messages_sha256 FROM prompts ORDER BY id"
    alembic.command.upgrade(alembic_config, "head")
    with engine.begin() as connection:
        assert connection.exec_driver_sql(query).scalars().all()[2] != old[2]
    alembic.command.downgrade(alembic_config, "0003")
    with engine.begin() as connection:
        assert connection.exec_driver_sql(query).scalars().all() == old
    engine.dispose()


def test_splits_of_before_keep_the_responses_that_their_prompts_had(
    empty_database: str, alembic_config: alembic.config.Config
) -> None:
    alembic.command.upgrade(alembic_config, "0003")
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        for sql in (
            "INSERT INTO prompts (id, dataset, messages, messages_sha256, source) VALUES"
            """ (7, 'd', '[{"role": "user", "content": "a"}]', 'x', 't'),"""
            """ (8, 'd', '[{"role": "user", "content": "b"}]', 'y', 't')""",
            "INSERT INTO ranked_responses (id, prompt_id, position, rank, text) VALUES"
            " (1, 7, 0, 0, 'good'), (2, 8, 0, 0, 'good'), (3, 7, 1, 1, 'poor')",
            "INSERT INTO model_versions (id, kind, manifest) VALUES ('base', 'base', '{}')",
            "INSERT INTO runs (id, name, config, config_sha256, software, base_version_id) VALUES"
            " ('00000000-0000-0000-0000-000000000001', 'r', '{}', 'x', '{}', 'base')",
            "INSERT INTO ranked_splits (run_id, prompt_id, held_out) SELECT id, 7, true FROM runs",
        ):
            connection.exec_driver_sql(sql)
    alembic.command.upgrade(alembic_config, "head")
    with engine.begin() as connection:
        ids = connection.exec_driver_sql("SELECT response_ids FROM ranked_splits").scalar_one()
        imitated = connection.exec_driver_sql("SELECT DISTINCT imitate FROM ranked_responses")
        assert (sorted(ids), imitated.scalars().all()) == ([1, 3], [True])
    engine.dispose()
