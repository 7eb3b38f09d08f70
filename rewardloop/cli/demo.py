"""`demo` and `up`: the embedded stack, and a whole run on it."""

import asyncio
import json
import signal
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rewardloop import presets
from rewardloop.cli.progress import follow, has_stopped
from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console
from rewardloop.clients.api import ApiClient
from rewardloop.datasets import read_prompts, read_ranked
from rewardloop.embedded.home import Home, write_private
from rewardloop.embedded.stack import Stack, running
from rewardloop.embedded.upstreams import read_upstreams
from rewardloop.errors import TrainingFailed
from rewardloop.texts import spelled_out

console = Console()

SEEDS = {"seed": "prompts", "evaluation": "evaluation", "validation": "validation"}
"""The prompt datasets that ship with the project, and their files."""


async def run(home: Home, prompts: int, iterations: int, keep: bool) -> None:
    """Start the stack, run the iterations, write the summary, show it."""
    async with running(home, port=None, tell=_tell) as stack, client(home) as api:
        _tell(f"dashboard: {_dashboard(stack)}")
        await import_seeds(api)
        await _tell_unfinished(api)
        config = {
            **presets.load("demo"),
            "prompts": {"dataset": "seed", "num_per_iteration": prompts},
        }
        created = await api.post("/v1/runs", config, iterations=iterations)
        views = await follow(api, created["id"], console, stack.require_alive)
        told = summary(created["id"], views, config["judging"]["mode"])
        write_private(home.summary, json.dumps(told, indent=1) + "\n")
        await _show(api, told, views)
        require_succeeded(views)
        console.print(f"summary: {home.summary}", soft_wrap=True)
        if keep:
            _tell("the stack stays up until Ctrl-C")
            await _until_stopped(stack)


def require_succeeded(views: list[dict[str, Any]]) -> None:
    """
    Raises:
        TrainingFailed: an iteration failed or was cancelled; those behind it wait for it.
    """
    for view in views:
        if view["state"] != "succeeded":
            raise TrainingFailed(view["error"] or f"iteration {view['index']} was cancelled")


async def up(home: Home, port: int, env_file: Path | None = None) -> None:
    """Run the stack until a signal comes or a part of it dies.

    `env_file` names engines from elsewhere, if any.
    """
    settings = read_upstreams(env_file) if env_file else {}
    async with running(home, port=port, tell=_tell, settings=settings) as stack:
        async with client(home) as api:
            await import_seeds(api)
        shown = {
            "api": stack.addresses.api,
            "dashboard": _dashboard(stack),
            "generator": f"{stack.addresses.generator}/v1",
            "judge": f"{stack.addresses.judge}/v1",
            "database": f"rewardloop dsn --home {home.folder}",
            "keys": f"{home.folder}/credentials.json",
            "logs": home.logs,
        }
        for name, value in shown.items():
            console.print(f"{name:<10} {value}", soft_wrap=True)
        await _until_stopped(stack)


def _tell(message: str) -> None:
    console.print(message, style="dim", soft_wrap=True)


def _dashboard(stack: Stack) -> str:
    """The key stands behind `#`, which a browser never sends."""
    return f"{stack.addresses.api}/#key={stack.home.credentials().api_key}"


async def _until_stopped(stack: Stack) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    while not stopped.is_set():
        stack.require_alive()
        await asyncio.sleep(0.5)


async def _tell_unfinished(api: ApiClient) -> None:
    views = (await api.get("/v1/iterations", limit=200))["items"]
    by_run: dict[str, list[dict[str, Any]]] = {}
    for view in reversed(views):
        by_run.setdefault(view["run_id"], []).append(view)
    unfinished = [
        view
        for of_run in by_run.values()
        if not has_stopped(of_run)
        for view in of_run
        if view["state"] in ("queued", "running")
    ]
    if unfinished:
        _tell(f"{len(unfinished)} iterations that were cut off go on first")


async def import_seeds(api: ApiClient) -> None:
    """Fill the datasets `seed`, `evaluation`, `validation` and `ranked` with what ships."""
    with as_file(files("rewardloop") / "seeds") as folder:
        for dataset, name in SEEDS.items():
            await api.add_prompts(dataset, read_prompts(folder / f"{name}.jsonl").prompts)
        await api.add_ranked("ranked", read_ranked(folder / "ranked.jsonl").prompts)


def summary(run_id: str, views: list[dict[str, Any]], judging_mode: str) -> dict[str, Any]:
    """What `summary.json` holds."""
    return {
        "run_id": run_id,
        "judging_mode": judging_mode,
        "iterations": [
            {
                "index": view["index"],
                **{
                    name: view["counts"][name]
                    for name in (
                        "prompts",
                        "responses",
                        "judgements",
                        "judgements_scored",
                        "pairs",
                    )
                },
                "base_version": view["base_version"],
                "new_version": view["new_version"],
                "tokens_per_second": view["tokens_per_second"],
                "seconds": {
                    phase: view["seconds"][phase] for phase in ("rollout", "train", "swap")
                },
            }
            for view in views
        ],
    }


async def _show(api: ApiClient, told: dict[str, Any], views: list[dict[str, Any]]) -> None:
    table = Table("", *(f"iteration {view['index']}" for view in views), box=None)
    rows = told["iterations"]
    for name in rows[0]:
        if name not in ("index", "seconds"):
            table.add_row(name.replace("_", " "), *(str(row[name]) for row in rows))
    for phase in ("rollout", "train", "swap"):
        table.add_row(f"{phase} seconds", *(str(row["seconds"][phase]) for row in rows))
    console.print(table)
    console.print(f"judging mode: {told['judging_mode']}")
    for view in views:
        await _show_scores(api, view)
    await _show_examples(api, told["run_id"])


async def _show_scores(api: ApiClient, view: dict[str, Any]) -> None:
    found = await api.get(f"/v1/iterations/{view['id']}/scores")
    counts = {**found["scores"], **found["unscored"]}
    widest = max([1, *counts.values()])
    console.print(f"\nscores of iteration {view['index']}")
    for score, count in counts.items():
        console.print(
            f"{score:>12} {'█' * round(40 * count / widest)} {count}",
            highlight=False,
            soft_wrap=True,
        )


async def _show_examples(api: ApiClient, run_id: str) -> None:
    pairs = (await api.get(f"/v1/runs/{run_id}/pairs", limit=3))["items"]
    for pair in pairs:
        asked = _short(pair["prompt"][-1]["content"])
        console.print(Text.assemble("\n", ("prompt", "bold"), f" {asked}"))
        for side in ("chosen", "rejected"):
            told = f" ({pair[f'{side}_score']:.2f}) {_short(pair[side])}"
            console.print(Text.assemble((side, "bold"), told))


def _short(text: str, limit: int = 240) -> str:
    line = spelled_out(" ".join(text.split()))
    return line if len(line) <= limit else line[:limit] + "…"
