"""The paper's whole chain on this machine: SFT baseline -> M1 -> M2 -> M3.

    python -m benchmarks.paper_cpu [--trees FILE] [--home DIR] [--config FILE]

One run on the embedded stack, with nothing simulated. Human rankings come from `--trees`
(Open Assistant trees, or a file like the shipped one) or ship with the project. The config
is the preset `paper-cpu`, with the keys of `--config` on top. Cut off
and called again with the same home and data, it goes on where it was. It writes
`report.html` into the home and prints the table of judge metrics on the held-out rankings;
its last line is one JSON object: how often M1 judges so that its score can be parsed, and
every version's metrics. Where an iteration failed it prints what there is, says why on
stderr, and ends with 1.
"""

import argparse
import asyncio
import json
import re
from pathlib import Path
from typing import Any

from rich.table import Table

from rewardloop import presets
from rewardloop.cli.demo import import_seeds
from rewardloop.cli.progress import follow, iterations_of
from rewardloop.cli.remote import client, resolved_config
from rewardloop.cli.terminal import Console
from rewardloop.clients.api import ApiClient
from rewardloop.config import RunConfig, parse_run_config
from rewardloop.datasets import RankedResult, read_ranked
from rewardloop.datasets.writer import write_text
from rewardloop.embedded.home import DEFAULT, Home
from rewardloop.embedded.stack import running
from rewardloop.errors import TrainingFailed
from rewardloop.lifecycle import ENDED
from rewardloop.process.exits import known_errors_told
from rewardloop.report import render

METRICS = (
    *("parse_rate", "pairwise_accuracy", "pairwise_accuracy_ties_half", "longer_is_better"),
    *("accuracy_balanced", "accuracy_longer_better", "accuracy_shorter_better", "five_best"),
    *("exact_order", "spearman", "kendall_tau"),
)
COUNTS = ("num_pairs_needed", "num_prompts_needed")
console = Console()


async def chain(
    home: Home, config: dict[str, Any], trees: Path | None, num_iterations: int
) -> dict[str, Any]:
    parse_run_config(config)  # what is wrong with the files is told before the stack starts
    read = None if trees is None else read_ranked(trees)
    async with running(home, port=None, tell=console.print) as stack, client(home) as api:
        await import_seeds(api)
        if trees is not None and read is not None:
            config = await _with_rankings(api, config, dataset_of(trees), read)
        run_id = await _run(api, config, num_iterations)
        await follow(api, run_id, console, stack.require_alive)
        await _evaluated(api, run_id)
        report: dict[str, Any] = await api.get(f"/v1/runs/{run_id}/report")
        write_text(render(report), home.folder / "report.html")
        console.print(f"report: {home.folder / 'report.html'}", soft_wrap=True)
    return report


def dataset_of(trees: Path) -> str:
    """A dataset's name after the file's, which may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"trees-{trees.stem}")[:100]


async def _with_rankings(
    api: ApiClient, config: dict[str, Any], dataset: str, read: RankedResult
) -> dict[str, Any]:
    """The config with the file's rankings instead of the shipped ones."""
    added = await api.add_ranked(dataset, read.prompts)
    console.print(
        f"{dataset}: {added['added']} new of {len(read.prompts)}; left out: {read.left_out}"
    )
    ours = {"bootstrap": {"dataset": dataset}, "prompts": {"dataset": dataset}}
    return presets.merged(config, ours)


async def _run(api: ApiClient, config: dict[str, Any], num_iterations: int) -> str:
    """The home's run of this config that did not fail, with what it lacks of
    `num_iterations`; or a new one."""
    wanted = parse_run_config(config)
    for run in (await api.get("/v1/runs", limit=1000))["items"]:
        views = await iterations_of(api, run["id"])
        same = RunConfig.model_validate({**run["config"], "base_version": None}) == wanted
        if same and views and all(view["state"] not in ("failed", "cancelled") for view in views):
            console.print(f"going on with run {run['id']}")
            missing = num_iterations - sum(view["kind"] == "improve" for view in views)
            if missing > 0:
                await api.post(f"/v1/runs/{run['id']}/iterations", {"count": missing})
            return str(run["id"])
    created = await api.post("/v1/runs", config, iterations=num_iterations)
    return str(created["id"])


async def _evaluated(api: ApiClient, run_id: str) -> None:
    """Wait for the head-to-heads that the last iteration asked for."""
    while True:
        items = (await api.get("/v1/evaluations", run_id=run_id, limit=200))["items"]
        if all(item["state"] in ENDED for item in items):
            return
        await asyncio.sleep(1)


def judges(report: dict[str, Any], mode: str) -> dict[str, dict[str, Any]]:
    """Each version's metrics as a judge of the held-out rankings."""
    return {
        item["label"].lower(): {
            key: item["metrics"].get(key) for key in (*METRICS, *COUNTS, "intervals")
        }
        for item in report["assessments"]
        if item["purpose"] == "health" and item["mode"] == mode and item["metrics"]
    }


def show(report: dict[str, Any]) -> None:
    for mode in dict.fromkeys(item["mode"] for item in report["assessments"]):
        found = judges(report, mode)
        if not found:
            continue
        table = Table(f"{mode} judging", *(label.upper() for label in found), box=None)
        for name in METRICS:
            table.add_row(name.replace("_", " "), *(_shown(row[name]) for row in found.values()))
            ends = [_ends(row, name) for row in found.values()]
            if any(ends):
                table.add_row("  95 % interval", *ends)
        for name in COUNTS:
            table.add_row(name.replace("_", " "), *(_count(row[name]) for row in found.values()))
        console.print(table)
        console.print("Intervals are over prompts; a dash means no data.")
    for item in report["evaluations"]:
        if item["result"]:
            r = item["result"]
            console.print(
                f"{item['a']} against {item['b']}: {r['num_wins']} won, {r['num_losses']} lost, "
                f"{r['num_ties']} ties, {r['num_undecided']} undecided"
            )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ends(metrics: dict[str, Any], name: str) -> str:
    ends = (metrics["intervals"] or {}).get(name) or {}
    return "" if ends.get("low") is None else f"{ends['low']:.2f} to {ends['high']:.2f}"


def _count(num: int | None) -> str:
    return "-" if num is None else f"{num:,}"


def outcome(report: dict[str, Any]) -> None:
    """Print the tables and the last line, of a failed run too.

    Raises:
        TrainingFailed: an iteration failed; with the first one's error.
    """
    show(report)
    mode = report["run"]["config"]["judging"]["mode"]
    free = judges(report, "free").get("m1", {}).get("parse_rate")
    print(json.dumps({"m1_free_parse_rate": free, "judge": judges(report, mode)}))
    for one in report["iterations"]:
        if one["state"] in ("failed", "cancelled"):
            why = one["error"] or "it was cancelled"
            raise TrainingFailed(f"iteration {one['index']} {one['state']}: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", type=Path, help="human-ranked data instead of the shipped set")
    parser.add_argument("--home", type=Path, default=DEFAULT.with_name(".rewardloop-paper-cpu"))
    parser.add_argument("--config", type=Path, help="RunConfig keys on top of the preset's")
    parser.add_argument("--iterations", type=int, default=2, help="2 lead to M3")
    options = parser.parse_args()
    if not 1 <= options.iterations <= 100:
        parser.error(f"--iterations {options.iterations}: give 1 to 100")
    with known_errors_told():
        config = resolved_config("paper-cpu", options.config)
        home = Home(options.home)
        outcome(asyncio.run(chain(home, config, options.trees, options.iterations)))


if __name__ == "__main__":
    main()
