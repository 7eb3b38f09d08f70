"""Commands that speak to a running stack over the API."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from rich.table import Column, Table
from rich.text import Text

from rewardloop import presets
from rewardloop.cli.progress import follow, iterations_of
from rewardloop.cli.rubric_file import with_rubric_text
from rewardloop.cli.terminal import Console, shown_json
from rewardloop.clients.api import ApiClient
from rewardloop.config.files import read_mapping
from rewardloop.datasets.writer import write_alpaca_eval, write_preference_jsonl, write_text
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput, NotFound, UpstreamUnavailable
from rewardloop.lifecycle import ENDED
from rewardloop.method.enclosure import transcript
from rewardloop.texts import spelled_out

console = Console()


@asynccontextmanager
async def client(home: Home) -> AsyncIterator[ApiClient]:
    """The API of the stack that runs in `home`.

    Raises:
        UpstreamUnavailable: nothing answers: `stack.json` outlives its stack.
    """
    async with ApiClient(home.addresses().api, home.credentials().api_key) as api:
        try:
            yield api
        except UpstreamUnavailable as error:
            if not isinstance(error.__cause__, httpx.TransportError):
                raise
            raise UpstreamUnavailable(
                f"{error.message}; is the stack running? Start it with "
                f"`rewardloop up --home {home.folder}`"
            ) from error


def read_config(path: Path | None) -> dict[str, Any]:
    """A RunConfig file as plain data; the API checks its keys.

    Raises:
        InvalidInput: the file cannot be read as a mapping that gives each key once.
    """
    return with_rubric_text(read_mapping(path), path.parent) if path else {}


def resolved_config(preset: str | None, config: Path | None) -> dict[str, Any]:
    """The preset's keys, with the file's on top."""
    return presets.merged(presets.load(preset) if preset else {}, read_config(config))


async def start(home: Home, preset: str | None, config: Path | None, iterations: int) -> None:
    """Prints the run's id, and beside it, for people, what the run begins with."""
    async with client(home) as api:
        run = await api.post("/v1/runs", resolved_config(preset, config), iterations=iterations)
    told = Console(stderr=True)
    told.print(beginning(run, iterations), soft_wrap=True)
    if preset is None and config is None:
        told.print(
            "No preset and no file was given, so every key has its default: the paper's values, "
            "which suit a large model. `rewardloop start --preset demo` suits two cores.",
            soft_wrap=True,
        )
    for note in run.get("notes", []):
        told.print(f"note: {note}", soft_wrap=True)
    print(spelled_out(run["id"]))


def beginning(run: dict[str, Any], iterations: int) -> str:
    """As in: begins with base; 1 iteration of 32 prompts x 4 answers x 3 judgements, ..."""
    config = run["config"]
    prompts, answers = config["prompts"]["num_per_iteration"], config["sampling"]["num_samples"]
    judgements = config["judging"]["num_judgements"]
    steps = "a bootstrap and " if config["bootstrap"] else ""
    return (
        f"begins with {run['base_version']}; {steps}{iterations} "
        f"{'iteration' if iterations == 1 else 'iterations'} of {prompts} prompts x {answers} "
        f"answers x {judgements} judgements: {prompts * answers * judgements:,} judgements in each"
    )


async def watch(home: Home, run_id: str | None) -> None:
    async with client(home) as api:
        chosen = await chosen_run(api, run_id)
        views = await follow(api, chosen, console)
        if not views:
            raise NotFound(
                f"run {chosen} has no iterations yet; queue some over REST: "
                f"POST /v1/runs/{chosen}/iterations"
            )
        for view in views:
            shown = {key: view[key] for key in ("index", "state", "new_version", "error")}
            if view["state"] == "queued":
                shown["waits_for"] = view["waits_for"]
            print(shown_json(shown))


async def export(home: Home, run_id: str, output: Path) -> None:
    async with client(home) as api:
        run_id = await chosen_run(api, run_id)
        rows = [row async for row in api.pairs(run_id)]
    if not rows:
        raise NotFound(f"run {run_id} has no preference pairs yet; see `rewardloop watch {run_id}`")
    written = write_preference_jsonl(rows, output)
    console.print(f"{written} pairs written to {output}", soft_wrap=True)


EVALUATION_POLL_SECONDS = 1.0


async def evaluate(
    home: Home, version_a: str, version_b: str, config: dict[str, Any]
) -> dict[str, Any]:
    """Queue A against B, wait, and return the evaluation."""
    async with client(home) as api:
        asked = {"version_a": version_a, "version_b": version_b, "config": config}
        created = await api.post("/v1/evaluations", asked)
        with console.status(Text(spelled_out(f"{version_a} against {version_b}"))):
            while True:
                found: dict[str, Any] = await api.get(f"/v1/evaluations/{created['id']}")
                if found["state"] in ENDED:
                    return found
                await asyncio.sleep(EVALUATION_POLL_SECONDS)


async def export_answers(home: Home, version: str, dataset: str, output: Path) -> None:
    async with client(home) as api:
        found = (await api.get(f"/v1/models/{version}/answers", dataset=dataset))["items"]
    rows = [
        {
            "dataset": dataset,
            "instruction": transcript(item["messages"]),
            "output": item["answer"],
            "generator": version,
        }
        for item in found
    ]
    written = write_alpaca_eval(rows, output)
    console.print(f"{written} answers written to {output}", soft_wrap=True)


async def chosen_run(api: ApiClient, run_id: str | None) -> str:
    """`run_id`, or the newest run's.

    Raises:
        InvalidInput: `run_id` is none.
        NotFound: there is no such run, or none at all.
    """
    if run_id is not None:
        return str((await api.get(f"/v1/runs/{_uuid(run_id)}"))["id"])
    runs = (await api.get("/v1/runs", limit=1))["items"]
    if not runs:
        raise NotFound("there is no run yet; start one with `rewardloop start`")
    return str(runs[0]["id"])


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is no run's id; `rewardloop runs` lists them") from None


async def report(home: Home, run_id: str | None, output: Path) -> None:
    from rewardloop.report import render  # Jinja costs every command a tenth of a second

    async with client(home) as api:
        data = await api.get(f"/v1/runs/{await chosen_run(api, run_id)}/report")
    write_text(render(data), output)
    console.print(f"report: {output}", soft_wrap=True)


async def show_conformance(home: Home, run_id: str | None) -> None:
    async with client(home) as api:
        rows = (await api.get(f"/v1/runs/{await chosen_run(api, run_id)}/conformance"))["items"]
    table = Table("", "value", "paper", "ran", box=None)
    for row in rows:
        mark = Text(row["verdict"], _VERDICT_COLOURS.get(row["verdict"], "dim"))
        table.add_row(
            mark, row["what"], row["paper"], "-" if row["ran"] is None else str(row["ran"])
        )
    console.print(table)
    console.print(_counted([row["verdict"] for row in rows]), soft_wrap=True)


_VERDICT_COLOURS = {"same": "green", "deviates": "yellow"}


def _counted(verdicts: list[str]) -> str:
    """Only values that the paper gives and that the run has can deviate."""
    num = Counter(verdicts)
    told = f"{num['deviates']} of {num['same'] + num['deviates']} values deviate"
    for verdict, words in (
        ("does not apply", "in parts that this run leaves out"),
        ("not run", "not run"),
        ("not given", "not given by the paper"),
    ):
        told += f"; {words}: {num[verdict]}" if num[verdict] else ""
    return told


POLICIES: tuple[dict[str, Any], ...] = (
    {"kind": "best_worst"},
    {"kind": "length_control", "rho": 0.1},
    {"kind": "several", "max_pairs_per_prompt": 3},
    {"kind": "consistency"},
    {"kind": "anchored"},
)


_POLICY_COLUMNS = ("pairs", "margin", "chosen chars", "rejected chars", "without a pair")


async def compare_policies(home: Home, run_id: str | None, min_margin: float) -> None:
    """Every policy over the scores that are stored; nothing is generated or written."""
    table = Table("iteration", Column("policy", no_wrap=True), *_POLICY_COLUMNS, box=None)
    async with client(home) as api:
        chosen = await chosen_run(api, run_id)
        for view in await iterations_of(api, chosen):
            if view["kind"] == "improve" and view["counts"]["responses"]:
                for policy in POLICIES:
                    asked = {"min_margin": min_margin, "policy": policy}
                    found = await api.post(f"/v1/iterations/{view['id']}/pairing", asked)
                    table.add_row(str(view["index"]), _policy_name(policy), *_policy_row(found))
    if not table.rows:
        raise NotFound(f"run {chosen} has no scored responses yet; see `rewardloop watch {chosen}`")
    console.print(table)


def _policy_name(policy: dict[str, Any]) -> str:
    """As in `length_control, rho 0.1`."""
    values = [f"{key} {value}" for key, value in policy.items() if key != "kind"]
    return ", ".join([policy["kind"], *values])


def _policy_row(found: dict[str, Any]) -> list[str]:
    means = ("mean_margin", "mean_chosen_length", "mean_rejected_length")
    return [
        str(found["num_pairs"]),
        *("-" if found[name] is None else f"{found[name]:.2f}" for name in means),
        ", ".join(f"{count} {why}" for why, count in found["unpaired"].items()) or "none",
    ]
