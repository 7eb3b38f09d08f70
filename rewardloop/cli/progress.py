"""Live bars for a run's iterations, one a phase."""

import asyncio
from collections.abc import Callable
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rewardloop.cli.terminal import Console
from rewardloop.clients.api import ApiClient
from rewardloop.lifecycle import ENDED
from rewardloop.texts import spelled_out

POLL_SECONDS = 0.5
_BARS = {
    "sample": ("responses", "responses_expected"),
    "judge": ("judgements", "judgements_expected"),
    "train": ("train_steps", "train_steps_total"),
}


async def follow(
    api: ApiClient,
    run_id: str,
    console: Console,
    check: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Show the run's iterations until nothing of it goes on by itself; returns them by index.

    `check` is called at every poll, and may raise to end the watch.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    shown: dict[str, dict[str, TaskID]] = {}
    told: set[tuple[str, str]] = set()
    num_dead: dict[str, int] = {}
    with bars:
        while True:
            check()
            views = await iterations_of(api, run_id)
            for view in views:
                if view["state"] == "queued":
                    continue
                _tell_phase(console, told, view)
                _tell_dead(console, num_dead, view)
                _show(bars, shown.setdefault(view["id"], {}), view)
            if has_stopped(views):
                return views
            await asyncio.sleep(POLL_SECONDS)


def _tell_phase(console: Console, told: set[tuple[str, str]], view: dict[str, Any]) -> None:
    """One line for each phase and each stop: not all have a bar, and a log file has none."""
    state = view["state"] if view["state"] in ("paused", "cancelled") else ""
    if (view["id"], view["phase"] + state) not in told:
        told.add((view["id"], view["phase"] + state))
        where = f"{state} in {view['phase']}" if state else view["phase"]
        told_now = spelled_out(f"iteration {view['index']}: {where}")
        console.print(told_now, highlight=False)


def has_stopped(views: list[dict[str, Any]]) -> bool:
    """Whether nothing of a run, whose iterations these are by index, goes on by itself: those
    behind one that failed or was cancelled wait until it is retried, once they have what they
    need not wait for. (A pause is waited for.)"""
    left = [view["state"] for view in views if view["state"] != "succeeded"]
    return not left or (left[0] in ENDED and "running" not in left)


def _tell_dead(console: Console, told: dict[str, int], view: dict[str, Any]) -> None:
    """One line whenever more prompts of the iteration are dead."""
    num = view["counts"].get("prompts_dead", 0)
    if num > told.get(view["id"], 0):
        told[view["id"]] = num
        console.print(
            f"iteration {view['index']}: {num} of {view['counts']['prompts']} prompts dead; see "
            f"`rewardloop dead {view['id']}`",
            highlight=False,
            soft_wrap=True,
        )


async def iterations_of(api: ApiClient, run_id: str) -> list[dict[str, Any]]:
    found = (await api.get("/v1/iterations", run_id=run_id, limit=200))["items"]
    return sorted(found, key=lambda view: int(view["index"]))


def _show(bars: Progress, tasks: dict[str, TaskID], view: dict[str, Any]) -> None:
    counts = view["counts"]
    for phase, (done, expected) in _BARS.items():
        if not counts[expected]:
            continue
        if phase not in tasks:
            tasks[phase] = bars.add_task(f"[{view['index']}] {phase}", note="")
        note = f"{view['tokens_per_second']:.0f} tokens/s" if phase == "judge" else ""
        bars.update(tasks[phase], total=counts[expected], completed=counts[done], note=note)
    seconds = view["seconds"]["swap"]
    if seconds is not None:
        if "swap" not in tasks:
            tasks["swap"] = bars.add_task(f"[{view['index']}] swap", total=1, note="")
        bars.update(tasks["swap"], completed=int(view["state"] == "succeeded"))
