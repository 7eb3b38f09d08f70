"""What there is to name: runs and model versions."""

from collections import Counter
from datetime import UTC, datetime

from rich.table import Column, Table

from rewardloop.cli.control import told
from rewardloop.cli.progress import iterations_of
from rewardloop.cli.remote import chosen_run, client
from rewardloop.cli.terminal import Console
from rewardloop.embedded.home import Home

console = Console()

NUM_RUNS = 20
"""More would scroll away; `GET /v1/runs` lists them all."""


async def list_runs(home: Home) -> None:
    """The newest runs, and how many of their iterations are in which state."""
    table = Table(Column("id", no_wrap=True), "name", "created (UTC)", "iterations", box=None)
    async with client(home) as api:
        for run in (await api.get("/v1/runs", limit=NUM_RUNS))["items"]:
            states = Counter(view["state"] for view in await iterations_of(api, run["id"]))
            told = ", ".join(f"{num} {state}" for state, num in states.items()) or "none"
            table.add_row(run["id"], run["name"], minute(run["created_at"]), told)
    console.print(table if table.rows else "no run yet; start one with `rewardloop start`")


async def list_iterations(home: Home, run_id: str | None) -> None:
    """A run's iterations by index, and where each stands."""
    table = Table(Column("id", no_wrap=True), "index", "stands", box=None)
    async with client(home) as api:
        for view in await iterations_of(api, await chosen_run(api, run_id)):
            stands = told(view) + (f": {view['error']}" if view["error"] else "")
            table.add_row(view["id"], str(view["index"]), stands)
    console.print(table if table.rows else "no iteration yet")


async def list_models(home: Home) -> None:
    """Every model version, oldest first."""
    table = Table(
        Column("id", no_wrap=True), "kind", "parent", "serving", "created (UTC)", box=None
    )
    async with client(home) as api:
        for model in (await api.get("/v1/models"))["items"]:
            serving = "yes" if model["serving"] else ""
            table.add_row(
                model["id"],
                model["kind"],
                model["parent"] or "-",
                serving,
                minute(model["created_at"]),
            )
    console.print(table)


def minute(moment: str) -> str:
    """An instant of the API, as a table shows it."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"
