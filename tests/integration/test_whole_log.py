"""A whole iteration's log: every line of its work is found by its id, and none holds a secret.

Two runs: one in processes of its own, as `rewardloop up` starts them, whose training fails since
the stub's weights are none; and one in this process to its end, with an engine that fails now and
then, so that judge and generator have something to log.
"""

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewardloop import redaction, telemetry
from rewardloop.embedded import stack
from rewardloop.embedded.home import Home
from rewardloop.errors import UpstreamUnavailable
from rewardloop.store.outbox import ADVANCE, ROLLOUT
from services.generator.stub_engine import Faults
from services.worker.named_work import work_named
from tests.integration.stub_home import stub_home

PARTS = ("controller", "worker", "trainer", "judge", "generator.stub_engine", "api")
STARTING = ("celery.", "kombu.", "uvicorn", "asyncio", "rewardloop.web", "rewardloop.process")
"""Loggers whose lines are about their process."""


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    """A home whose served version is a small checkpoint for the stub engine."""
    return await stub_home(tmp_path / "home")


async def failed_in_training(home: Home) -> dict[str, Any]:
    """Runs one iteration in a stack; returns the iteration as the API shows it at its end."""
    on_the_stub = partial(stack.running, generator="generator.stub_engine")
    headers = {"authorization": f"Bearer {home.credentials().api_key}"}
    async with (
        on_the_stub(home, port=None, tell=lambda _: None) as running,
        httpx.AsyncClient(base_url=running.addresses.api, headers=headers, timeout=60) as api,
    ):
        rows = [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(4)]
        await api.post("/v1/datasets/seed/prompts", json={"prompts": rows})
        config = {"prompts": {"num_per_iteration": 4}, "health": {"max_tie_rate": 1}}
        run = (await api.post("/v1/runs", json=config, params={"iterations": 1})).json()
        while True:
            (found,) = (await api.get("/v1/iterations", params={"run_id": run["id"]})).json()[
                "items"
            ]
            if found["state"] not in ("queued", "running"):
                return dict(found)
            running.require_alive()
            await asyncio.sleep(0.5)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line in ("", "worker: Warm shutdown (MainProcess)"):
            continue  # Celery writes it past the log
        found = json.loads(line)
        assert {"time", "level", "logger", "message"} <= found.keys(), line
        yield found


def is_work(line: dict[str, Any]) -> bool:
    """Lines about a task for an iteration, and lines that our rooms log about their work."""
    if line["message"].startswith("Task ") and "reconcile" not in line["message"]:
        return True
    if "superuser privileges" in line["message"]:
        return False  # Celery, to root
    return not line["logger"].startswith(STARTING)


async def test_every_line_of_a_stacks_work_is_found_by_its_id(home: Home) -> None:
    iteration = await failed_in_training(home)
    assert (iteration["state"], iteration["phase"]) == ("failed", "train")
    work = []
    for part in PARTS:
        lines = list(lines_of(home.logs / f"{part}.log"))
        work += [{**line, "part": part} for line in lines if is_work(line)]
    unnamed = [line for line in work if line.get("iteration") != iteration["id"]]
    assert unnamed == []
    assert {line["part"] for line in work} >= {"controller", "trainer"}
    entered = {line["message"] for line in work if line["part"] == "controller"}
    assert entered >= {f"the iteration enters {phase}" for phase in ("rollout", "pairing", "train")}
    named = [line for line in work if line["part"] in ("controller", "trainer")]
    assert {line.get("run") for line in named} == {iteration["run_id"]}
    secrets = vars(home.credentials()).values()
    logs = "".join(path.read_text(errors="replace") for path in home.logs.iterdir())
    assert [secret for secret in secrets if secret in logs] == []


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """What this process logs as its services would."""
    lines: list[dict[str, Any]] = []

    class Remembers(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler, root = Remembers(logging.INFO), logging.getLogger()
    handler.setFormatter(telemetry.JsonFormatter())
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


async def test_what_judge_and_generator_log_names_the_iteration_that_asked(
    world: Any, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    world.serve(faults=Faults(error_rate=0.5))
    monkeypatch.setattr("services.judge.app.UPSTREAM_RETRY_SECONDS", 0)
    # As where the judge has an engine of its own: a roll-out asks the generators itself else.
    monkeypatch.setattr("rewardloop.clients.judge.address_sha256", lambda url: "another")
    (iteration_id,) = await world.new_run()
    run_id = (await world.iteration(iteration_id)).run_id
    log.clear()
    async with work_named(world.store, ADVANCE, iteration_id):
        await world.advance(iteration_id)
    async with work_named(world.store, ROLLOUT, iteration_id):
        try:
            await world.roll_out(iteration_id)
        except Exception as error:
            logging.getLogger("rewardloop.worker").exception("stopped: %s", error)
    judged = [line for line in log if line["logger"] == "rewardloop.web"]
    assert judged, "the judge met no failing engine"
    for line in log:
        if line["logger"] == "uvicorn.access":
            continue  # our services have it switched off
        assert line.get("iteration") == str(iteration_id), line
        assert line["run"] == str(run_id)
    assert {line["version"] for line in judged} == {"base"}


async def test_errors_that_quote_addresses_show_no_password(
    world: Any, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, in the database and in the API's answers."""
    redaction.keep_out(world.settings.database_url.get_secret_value())
    hidden = "hidden-from-everybody"
    url = f"http://me:{hidden}@127.0.0.1:9"

    async def broken(*_: Any) -> None:
        raise UpstreamUnavailable(f"{url} does not answer")

    monkeypatch.setattr("services.worker.steps.bring_to", broken)
    await world.with_base()
    await world.add_prompts("one")
    (iteration_id,) = await world.new_run()
    await world.advance(iteration_id)
    try:
        raise OSError(f"{url} {world.settings.database_url.get_secret_value()}")
    except OSError:
        logging.getLogger("anybody").exception("a library's own traceback")
    async with world.api() as api:
        answered = (await api.get("/v1/iterations")).text
    stored = str(await world.rows("SELECT * FROM events")) + str(
        await world.rows("SELECT error FROM iterations")
    )
    assert "http://***@127.0.0.1:9" in stored
    password = world.settings.database_url.get_secret_value().split(":")[2].split("@")[0]
    for secret in (hidden, password):
        assert secret not in json.dumps(log) + stored + answered
