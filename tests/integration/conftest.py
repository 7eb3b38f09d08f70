"""A real Postgres and a real Valkey for the session, and a fresh `World` for each test."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import httpx
import kombu.pools
import psycopg
import pytest
import redis
from celery import Celery
from sqlalchemy import insert, text

from rewardloop import checkpoints
from rewardloop.clients import generator as generator_client
from rewardloop.clients import judge as judge_client
from rewardloop.config import Settings, parse_run_config
from rewardloop.embedded import postgres, valkey
from rewardloop.embedded.home import Home
from rewardloop.embedded.process import free_port
from rewardloop.queue import make_app
from rewardloop.records import PromptRecord, RankedPrompt, RankedText
from rewardloop.store import Store, iterations, prompts, rankings, runs, training, versions
from rewardloop.store.models import Base, Iteration, Judgement, Response
from services.api.app import make_app as make_api
from services.generator import gate
from services.generator.stub_engine import Faults, StubEngine
from services.generator.stub_engine import make_app as make_generator
from services.judge import app as judge_app
from services.trainer.plan import plan_of
from services.worker import advance, assess, evaluate, rollout
from services.worker import prompts as writing
from tests.integration.rows import judgement_row, response_row, write_checkpoint
from tests.integration.served import Served
from tests.integration.trainer_jobs import job, module  # noqa: F401 (fixtures)

API_KEY = "api-key-of-the-tests"
ADMIN_KEY = "admin-key-of-the-tests"


@dataclass(frozen=True)
class Servers:
    home: Home
    database: str
    """libpq address."""
    broker: str

    @property
    def sqlalchemy_url(self) -> str:
        return self.database.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = Home(tmp_path_factory.mktemp("servers") / "home")
    home.create()
    database, database_port = asyncio.run(postgres.start(home))
    broker, broker_port = asyncio.run(valkey.start(home))
    secrets = home.credentials()
    found = Servers(
        home,
        postgres.dsn(database_port, secrets.database_password),
        valkey.url(broker_port, secrets.broker_password),
    )
    with psycopg.connect(found.database, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # these data need not survive
        connection.execute("SELECT pg_reload_conf()")
    asyncio.run(_migrate(found.sqlalchemy_url))
    yield found
    broker.stop()
    database.stop()


async def _migrate(url: str) -> None:
    store = Store(url)
    await store.migrate()
    await store.close()


@pytest.fixture
def broker(servers: Servers) -> Iterator[redis.Redis]:
    """The test's own, empty Valkey."""
    with redis.Redis.from_url(servers.broker) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def settings(
    servers: Servers, broker: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings over an empty database, also in the environment, where the gate reads them."""
    _empty(servers.database)
    generator_url = f"http://127.0.0.1:{free_port()}"
    variables = {
        "DATABASE_URL": servers.sqlalchemy_url,
        "BROKER_URL": servers.broker,
        "API_KEY": API_KEY,
        "ADMIN_KEY": ADMIN_KEY,
        "GENERATOR_URLS": json.dumps([generator_url]),
        "JUDGE_URL": f"http://127.0.0.1:{free_port()}",
        "JUDGE_UPSTREAM_URL": generator_url,
        "CHECKPOINT_ROOT": str(tmp_path / "checkpoints"),
        "NOTICE_SECONDS": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"REWARDLOOP_{name}", value)
    # A service that is down shall not hold a test up for a minute.
    for client, name in (
        (generator_client, "RETRY_SECONDS"),
        (judge_client, "RETRY_SECONDS"),
        (judge_app, "UPSTREAM_RETRY_SECONDS"),
    ):
        monkeypatch.setattr(client, name, 0.5)
    return Settings()


def _empty(database: str) -> None:
    """Delete every row and let ids begin at 1; a tenth of the time of TRUNCATE."""
    with psycopg.connect(database) as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(f'DELETE FROM "{table.name}"')
        counters = connection.execute("SELECT sequencename FROM pg_sequences").fetchall()
        for (name,) in counters:
            connection.execute(f'ALTER SEQUENCE "{name}" RESTART')


@dataclass
class World:
    """What a test acts on. Nothing is served before it asks for that."""

    settings: Settings
    store: Store
    celery: Celery
    broker: redis.Redis
    monkeypatch: pytest.MonkeyPatch
    served: list[Served] = field(default_factory=list)

    async def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        async with self.store.transaction() as session:
            found = await session.execute(text(sql), parameters)
            return [dict(row) for row in found.mappings()]

    async def value(self, sql: str, **parameters: Any) -> Any:
        """The only column of the only row."""
        (row,) = await self.rows(sql, **parameters)
        (only,) = row.values()
        return only

    async def publish(
        self, version: str, parent: str | None = None, kind: str | None = None
    ) -> None:
        """Publish a small checkpoint and commit its row."""
        kind = kind or ("dpo" if parent else "base")
        manifest = checkpoints.publish(
            self.settings.checkpoint_root,
            version,
            lambda folder: write_checkpoint(folder, version),
            {"kind": kind, "parent": parent},
        )
        async with self.store.transaction() as session:
            await versions.add(session, version, kind=kind, parent=parent, manifest=manifest)

    async def with_base(self, version: str = "base") -> None:
        """A base version that is marked as served."""
        await self.publish(version)
        async with self.store.transaction() as session:
            await versions.set_serving(session, version)

    async def serving(self) -> str | None:
        async with self.store.transaction() as session:
            return await versions.serving(session)

    async def add_prompts(self, *contents: str, dataset: str = "seed") -> list[int]:
        records = [
            PromptRecord(({"role": "user", "content": content},), None, "test")
            for content in contents
        ]
        async with self.store.transaction() as session:
            await prompts.add(session, dataset, records)
        found = await self.rows("SELECT id FROM prompts WHERE dataset = :d ORDER BY id", d=dataset)
        return [row["id"] for row in found]

    async def add_ranked(self, *prompts: RankedPrompt, dataset: str = "ranked") -> None:
        async with self.store.transaction() as session:
            await rankings.add(session, dataset, prompts)

    async def new_run(self, count: int = 1, **config: Any) -> list[UUID]:
        """Create a run and return the ids of its `count` iterations."""
        async with self.store.transaction() as session:
            run = await runs.create(session, parse_run_config(config), {})
            added = await runs.add_iterations(session, run.id, count)
            return [iteration.id for iteration in added]

    async def iteration(self, iteration_id: UUID) -> Iteration:
        async with self.store.transaction() as session:
            return await iterations.get(session, iteration_id)

    async def in_rollout(self, iteration_id: UUID) -> None:
        """Put a queued iteration into the phase rollout without a replica."""
        async with self.store.transaction() as session:
            assert await iterations.try_start(session, iteration_id)
            iteration = await iterations.get(session, iteration_id)
            await iterations.enter(session, iteration, iterations.Phase.ROLLOUT)

    async def judged(
        self, iteration_id: UUID, scores: Mapping[int, Sequence[Sequence[float | None]]]
    ) -> None:
        """End a roll-out by hand: by prompt id, each response's scores (None: unparsed).

        Responses grow longer with their index.
        """
        await self.in_rollout(iteration_id)
        async with self.store.transaction() as session:
            for prompt_id, of_prompt in scores.items():
                for index, of_response in enumerate(of_prompt):
                    row = response_row(iteration_id, prompt_id, index)
                    response_id = await session.scalar(
                        insert(Response).values(row).returning(Response.id)
                    )
                    for judge_index, score in enumerate(of_response):
                        row = judgement_row(response_id, judge_index, score)
                        await session.execute(insert(Judgement).values(row))
        await self.rows(
            "UPDATE iteration_prompts SET state = 'done' WHERE iteration_id = :i RETURNING 1",
            i=iteration_id,
        )

    async def advance(self, iteration_id: UUID) -> Iteration:
        await advance.run(self.store, self.celery, self.settings, iteration_id)
        return await self.iteration(iteration_id)

    async def roll_out(self, iteration_id: UUID) -> None:
        await rollout.run(self.store, self.celery, self.settings, iteration_id)

    async def assess(self, iteration_id: UUID) -> None:
        await assess.run(self.store, self.celery, self.settings, iteration_id)

    async def write_prompts(self, iteration_id: UUID) -> None:
        await writing.run(self.store, self.celery, self.settings, iteration_id)

    async def evaluate(self, evaluation_id: UUID) -> None:
        await evaluate.run(self.store, self.celery, self.settings, evaluation_id)

    async def train(self, iteration_id: UUID) -> str:
        """What the trainer does in either stage, but for the training."""
        async with self.store.transaction() as session:
            job = await training.lease(session, "test", 60)
            assert job is not None
            assert job.iteration_id == iteration_id
            plan = await plan_of(session, job)
        await self.publish(plan.version, plan.parent, plan.kind)
        async with self.store.transaction() as session:
            await training.succeed(session, job, plan.version)
        return plan.version

    async def bootstrap(self, iteration_id: UUID) -> tuple[str, str]:
        """Take a queued bootstrap to its end; returns the SFT baseline and M1."""
        await self.advance(iteration_id)
        baseline = await self.train(iteration_id)
        await self.advance(iteration_id)
        await self.assess(iteration_id)
        await self.advance(iteration_id)
        version = await self.train(iteration_id)
        await self.advance(iteration_id)
        await self.assess(iteration_id)
        await self.advance(iteration_id)
        return baseline, version

    async def improve(self, iteration_id: UUID) -> str:
        """Take a queued iteration of the kind `improve` to its end; returns the new version."""
        await self.advance(iteration_id)
        await self.roll_out(iteration_id)
        await self.advance(iteration_id)
        version = await self.train(iteration_id)
        if (await self.advance(iteration_id)).phase == "assess":
            await self.assess(iteration_id)
            await self.advance(iteration_id)
        return version

    def serve_generator(
        self,
        version: str = "base",
        faults: Faults | None = None,
        max_model_len: int = 2048,
        replica: int = 0,
    ) -> StubEngine:
        self.monkeypatch.setenv(gate.INITIAL_VERSION, version)
        folder = checkpoints.folder_of(self.settings.checkpoint_root, version)
        engine = StubEngine(folder, faults=faults, max_model_len=max_model_len)
        self.served.append(Served(make_generator(engine), self.settings.generator_urls[replica]))
        return engine

    def serve_judge(self) -> None:
        self.served.append(Served(judge_app.make_app(self.settings), self.settings.judge_url))

    def serve(self, faults: Faults | None = None, max_model_len: int = 2048) -> StubEngine:
        """Generator and judge, on the version "base"."""
        engine = self.serve_generator(faults=faults, max_model_len=max_model_len)
        self.serve_judge()
        return engine

    def stop_generator(self) -> None:
        """Stop what was served last."""
        self.served.pop().stop()

    @asynccontextmanager
    async def api(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client with the key, of an API without a server in between."""
        app = make_api(self.settings)
        key = self.settings.api_key.get_secret_value()
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://api",
                headers={"authorization": f"Bearer {key}"},
            ) as client,
        ):
            yield client

    async def lose_messages(self) -> None:
        """Those in the outbox and those in the broker."""
        await self.rows("DELETE FROM outbox RETURNING 1")
        self.broker.flushall()

    def messages(self, queue: str) -> int:
        """How many messages wait in a Celery queue."""
        return int(self.broker.llen(queue))  # type: ignore[arg-type]


def ranked_prompt(content: str, *texts: str, reference: str | None = "…") -> RankedPrompt:
    """A prompt whose responses `texts` humans put in this order, the best one first."""
    record = PromptRecord(({"role": "user", "content": content},), reference, "test")
    return RankedPrompt(record, tuple(RankedText(text, rank) for rank, text in enumerate(texts)))


@pytest.fixture
async def world(
    settings: Settings, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    # The stub's texts follow from version names, and those from the ids of runs: let them repeat.
    chance = Random(0)
    monkeypatch.setattr(runs, "uuid4", lambda: UUID(int=chance.getrandbits(128), version=4))
    store = Store(settings.database_url.get_secret_value())
    celery = make_app(settings)
    made = World(settings, store, celery, broker, monkeypatch)
    yield made
    for served in made.served:
        served.ask_to_stop()
    for served in made.served:
        await asyncio.to_thread(served.stop)
    await store.close()
    kombu.pools.reset()
    celery.close()


@pytest.fixture
def unused_url() -> Callable[[], str]:
    """An address of this machine on which nothing listens."""
    return lambda: f"http://127.0.0.1:{free_port()}"
