"""The embedded stack with a real vLLM, which can be killed and started again, and what it stored.

`rewardloop up` and `rewardloop demo` end the whole stack when any of its processes has ended
(`Stack.require_alive`); nothing starts an engine again by itself. Here nobody calls
`require_alive`, so the other services go on, as they do where each is a container of its own.
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg

from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.embedded.process import Process
from rewardloop.embedded.stack import GENERATOR_START_SECONDS, Stack, environment
from rewardloop.lifecycle import ENDED
from rewardloop.records import Phase

NUM_PROMPTS, NUM_SAMPLES, NUM_JUDGEMENTS = 8, 4, 3
NUM_RESPONSES = NUM_PROMPTS * NUM_SAMPLES
LOOK_SECONDS = 0.1
AGAIN_SECONDS = 0.5
"""A call that is in flight at two looks so far apart is no probe of one token."""
WAIT_SECONDS = 300.0
"""For anything that has to come."""


async def until(what: str, is_so: Callable[[], bool], look_seconds: float = LOOK_SECONDS) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"not {what} after {WAIT_SECONDS:.0f} s"
        await asyncio.sleep(look_seconds)


class Engine:
    """vLLM behind the gate, with whatever processes it started itself."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.url = stack.addresses.generator
        self._process = next(part for part in stack.processes if part.name == "generator")
        self._log_begins = 0
        secrets = stack.home.credentials()
        self._admin_key = secrets.admin_key
        headers = {"authorization": f"Bearer {secrets.api_key}"}
        self._gate = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60)

    async def aclose(self) -> None:
        await self._gate.aclose()

    async def kill(self) -> int:
        """SIGKILL to the server and to its descendants, by pid; returns how many there were."""
        server = psutil.Process(self._process.pid)
        victims = [server, *server.children(recursive=True)]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        await until("dead", lambda: self._process.has_ended and not any(map(_lives, victims)))
        return len(victims)

    async def start(self) -> None:
        """As the stack does it, at the same port; returns when the engine answers."""
        log = self._stack.home.logs / "generator.log"
        self._log_begins = log.stat().st_size
        host, _, port = self.url.removeprefix("http://").partition(":")
        self._process = Process(
            "generator",
            [sys.executable, "-m", "services.generator", "--host", host, "--port", port],
            environment(self._stack.home, self._stack.addresses, "generator"),
            log,
        )
        self._stack.processes.append(self._process)
        await self._process.wait_until(self._is_healthy, GENERATOR_START_SECONDS)

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def has_logged(self, words: str) -> bool:
        """Since it was started the last time."""
        with self._process.log.open("rb") as log:
            log.seek(self._log_begins)
            return words.encode() in log.read()

    async def is_at_work(self) -> bool:
        return await self._has_calls(LOOK_SECONDS) and await self._has_calls(AGAIN_SECONDS)

    async def _has_calls(self, after_seconds: float) -> bool:
        await asyncio.sleep(after_seconds)
        told = (await self._gate.get("/metrics")).text
        (found,) = re.findall(r"^rewardloop_requests_in_flight (\S+)$", told, re.MULTILINE)
        return float(found) > 0

    async def serves(self, version: str) -> bool:
        """Whether it holds, and answers with, weights whose canaries agree. (Where they do not,
        the gate loads them anew, and then the checksums differ.)"""
        async with ReplicaAdmin(self.url, self._admin_key) as admin:
            held = await admin.weights()
            checked = await admin.activate(version)
        canary = checked["canary"]
        return (
            held["version"] == version == await self._answering()
            and held["checksums"] == checked["checksums"]
            and bool(canary["mean_difference"] <= canary["bound"])
        )

    async def _answering(self) -> str:
        request = {
            "model": "policy",
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 4,
        }
        answer = await self._gate.post("/v1/chat/completions", json=request)
        return str(answer.raise_for_status().json()["weight_version"])


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Progress:
    """Where the iteration stands in Postgres."""

    state: str
    phase: str
    error: str | None
    base_version: str | None
    new_version: str | None
    serving: str
    num_responses: int
    num_judgements: int
    num_sampling: int
    """Prompts that are worked on and have no response yet."""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_sampling(self) -> bool:
        return 0 < self.num_responses < NUM_RESPONSES and self.num_sampling > 0

    @property
    def is_judging(self) -> bool:
        """Nothing is left to sample, so whatever the engine does is judging."""
        num_wanted = NUM_RESPONSES * NUM_JUDGEMENTS
        return self.num_responses == NUM_RESPONSES and 0 < self.num_judgements < num_wanted

    @property
    def is_swapping(self) -> bool:
        return self.phase == Phase.SWAP and self.serving != self.new_version


_OF_ITERATION = "FROM responses r WHERE r.iteration_id = i.id"
_PROGRESS = f"""
SELECT i.state, i.phase, i.error, i.base_version_id, i.new_version_id,
  (SELECT version_id FROM serving),
  (SELECT count(*) {_OF_ITERATION}),
  (SELECT count(*) FROM judgements j WHERE j.response_id IN (SELECT r.id {_OF_ITERATION})),
  (SELECT count(*) FROM iteration_prompts p WHERE p.iteration_id = i.id AND p.state = 'leased'
    AND NOT EXISTS (SELECT 1 {_OF_ITERATION} AND r.prompt_id = p.prompt_id))
FROM iterations i
"""


class Stored:
    """What the stack's database holds; its only run has one iteration."""

    def __init__(self, stack: Stack) -> None:
        self._connection = psycopg.connect(stack.addresses.database, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode()).fetchall()  # as bytes it may be any text

    def progress(self) -> Progress:
        (row,) = self.rows(_PROGRESS)
        return Progress(*row)

    def ids(self) -> set[tuple[str, int]]:
        """Of every response and judgement."""
        query = "SELECT 'response', id FROM responses UNION SELECT 'judgement', id FROM judgements"
        return {(kind, number) for kind, number in self.rows(query)}

    def num_attempts(self) -> int:
        """Failed ones that were called the prompts' own."""
        ((counted,),) = self.rows("SELECT sum(num_attempts) FROM iteration_prompts")
        return int(counted)

    def num_duplicates(self) -> int:
        counted = self.rows(
            "SELECT count(*) - count(DISTINCT (prompt_id, sample_index)) FROM responses"
            " UNION ALL"
            " SELECT count(*) - count(DISTINCT (response_id, judge_index)) FROM judgements"
        )
        return sum(int(count) for (count,) in counted)
