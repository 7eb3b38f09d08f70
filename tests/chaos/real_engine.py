"""One real iteration whose engine is killed three times: `python -m tests.chaos.real_engine`.

The embedded stack with vLLM, the packaged model, judge, worker and trainer. The engine and its
children get SIGKILL once while the engine samples, once while it judges, and once while it loads
the new version, and it is started again each time. Ends in one JSON object:

    responses, judgements, duplicates   what the iteration stored
    killed                              how often the engine died in the midst of each
    versions                            model versions beside the base
    served                              whether the engine serves the new one, canaries and all
    recovery_seconds                    from the engine's return (`/health` is 200) until calls
                                        flow; for `swapping`, until the new version is served

The exit status is 1 where anything is off; what it was stands on stderr.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rewardloop import presets
from rewardloop.cli.demo import import_seeds
from rewardloop.cli.remote import client
from rewardloop.embedded.home import Home
from rewardloop.embedded.stack import running
from tests.chaos.real_stack import (
    NUM_JUDGEMENTS,
    NUM_PROMPTS,
    NUM_RESPONSES,
    NUM_SAMPLES,
    Engine,
    Progress,
    Stored,
    until,
)

CONFIG: dict[str, Any] = {
    "prompts": {"dataset": "seed", "num_per_iteration": NUM_PROMPTS},
    "sampling": {"num_samples": NUM_SAMPLES, "max_tokens": 64},
    "judging": {"num_judgements": NUM_JUDGEMENTS},
    # Few at once, so that some prompts are judged while others wait, and none may be left out.
    "rollout": {"max_prompts_in_flight": 2, "max_dead_share": 0.0},
    "training": {"batch_size": 2, "micro_batch_size": 2, "max_length": 256},
}
"""On top of the preset `demo`."""
RELOADING = "Reloading weights inplace"
"""What vLLM logs when it begins to overwrite its weights."""
SWAP_LOOK_SECONDS = 0.005
"""Loading takes a fraction of a second."""
LOG_TAIL = 3000
MIDST: dict[str, Callable[[Progress], bool]] = {
    "sampling": lambda progress: progress.is_sampling,
    "judging": lambda progress: progress.is_judging,
    "swapping": lambda progress: progress.is_swapping,
}


def tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@dataclass
class Kills:
    """Kills the engine in the midst of each, and notes what came of it."""

    engine: Engine
    stored: Stored
    known: set[tuple[str, int]] = field(default_factory=set)
    """Responses and judgements that were stored before a kill."""
    killed: dict[str, int] = field(default_factory=dict)
    recovery_seconds: dict[str, float] = field(default_factory=dict)

    async def kill_while(self, what: str) -> None:
        await self._reach(what)
        self.known |= self.stored.ids()
        num_processes = await self.engine.kill()
        found, began = self.stored.progress(), time.monotonic()
        self.killed[what] = int(MIDST[what](found))
        tell(f"killed {num_processes} processes while {what}: {found}")
        await self.engine.start()
        back = time.monotonic()
        await self._recovered(what)
        self.recovery_seconds[what] = round(time.monotonic() - back, 1)
        tell(f"started in {back - began:.1f} s, went on after {self.recovery_seconds[what]} s")

    async def _reach(self, what: str) -> None:
        while True:
            await until(what, lambda: self._is_in(what))
            if what == "swapping":
                logged = partial(self.engine.has_logged, RELOADING)
                await until("loading", logged, SWAP_LOOK_SECONDS)
                return
            if await self.engine.is_at_work() and self._is_in(what):
                return

    def _is_in(self, what: str) -> bool:
        found = self.stored.progress()
        assert not found.has_ended, f"ended before it was killed while {what}: {found}"
        return MIDST[what](found)

    async def _recovered(self, what: str) -> None:
        """Calls flow where the engine is at work, or where more was stored by its answers."""
        if what == "swapping":
            await until("served", lambda: not self.stored.progress().is_swapping)
            return
        num_stored = len(self.stored.ids())
        deadline = time.monotonic() + 120
        while not await self.engine.is_at_work() and len(self.stored.ids()) == num_stored:
            assert time.monotonic() < deadline, f"no calls for two minutes after {what}"


async def run(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the program prints, and what is off."""
    home = Home(folder)
    try:
        async with running(home, port=None, tell=tell) as stack, client(home) as api:
            await import_seeds(api)
            config = presets.merged(presets.load("demo"), CONFIG)
            await api.post("/v1/runs", config, iterations=1)
            engine, stored = Engine(stack), Stored(stack)
            try:
                return await _measure(Kills(engine, stored))
            finally:
                stored.close()
                await engine.aclose()
    except Exception:
        for log in ("generator", "worker", "controller", "trainer"):
            tell(f"--- {log}\n{(home.logs / f'{log}.log').read_text()[-LOG_TAIL:]}")
        raise


async def _measure(kills: Kills) -> tuple[dict[str, Any], list[str]]:
    for what in MIDST:
        await kills.kill_while(what)
    stored = kills.stored
    await until("ended", lambda: stored.progress().has_ended)
    end = stored.progress()
    tell(f"ended: {end}; failed attempts of prompts: {stored.num_attempts()}")
    ((num_versions,),) = stored.rows("SELECT count(*) FROM model_versions WHERE kind <> 'base'")
    found = {
        "responses": end.num_responses,
        "judgements": end.num_judgements,
        "duplicates": stored.num_duplicates(),
        "killed": kills.killed,
        "versions": num_versions,
        "served": end.new_version is not None and await kills.engine.serves(end.new_version),
        "recovery_seconds": kills.recovery_seconds,
    }
    return found, faults(found, end, kills)


def faults(found: dict[str, Any], end: Progress, kills: Kills) -> list[str]:
    wanted = {
        "responses": NUM_RESPONSES,
        "judgements": NUM_RESPONSES * NUM_JUDGEMENTS,
        "duplicates": 0,
        "killed": dict.fromkeys(MIDST, 1),
        "versions": 1,
        "served": True,
    }
    off = [
        f"{name} is {found[name]}, not {value}"
        for name, value in wanted.items()
        if found[name] != value
    ]
    if end.state != "succeeded" or end.serving != end.new_version:
        off.append(f"the iteration ended as {end}")
    if lost := kills.known - kills.stored.ids():
        off.append(f"{len(lost)} rows that were stored before a kill are gone")
    return off + _wrong_labels(kills.stored, end)


def _wrong_labels(stored: Stored, end: Progress) -> list[str]:
    """Until the new version was served, the base sampled everything."""
    labels = stored.rows(
        "SELECT weight_version, bool_and(created_at < (SELECT since FROM serving))"
        " FROM responses GROUP BY 1"
    )
    if labels == [(end.base_version, True)]:
        return []
    return [f"{end.base_version} sampled everything before the swap, and stored is {labels}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="kept; a temporary folder if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-real-") as folder:
        found, off = asyncio.run(run(options.home or Path(folder) / "home"))
    for fault in off:
        tell(fault)
    print(json.dumps(found))
    sys.exit(bool(off))


if __name__ == "__main__":
    main()
