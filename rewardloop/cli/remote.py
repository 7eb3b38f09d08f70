"""Commands that speak to a running stack over the API."""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rewardloop.cli.progress import follow
from rewardloop.clients.api import ApiClient
from rewardloop.datasets import Format, read_prompts
from rewardloop.datasets.writer import write_preference_jsonl
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput, NotFound

console = Console()


def client(home: Home) -> ApiClient:
    """The API of the stack that runs in `home`."""
    return ApiClient(home.addresses().api, home.credentials().api_key)


async def import_file(
    home: Home, file: Path, dataset: str, format: Format, skip_broken: bool, language: str
) -> None:
    read = read_prompts(file, format, skip_broken=skip_broken, language=language)
    if not read.prompts:
        raise InvalidInput(
            f"{file}: no prompt is left after the filters ({read.num_filtered} filtered); "
            "try another --language"
        )
    async with client(home) as api:
        added = await api.add_prompts(dataset, read.prompts)
    console.print(
        f"{dataset}: {added} prompts added, {len(read.prompts) - added} known already, "
        f"{read.num_filtered} filtered, {len(read.skipped)} broken lines left out",
        soft_wrap=True,
    )


def read_config(path: Path | None) -> dict[str, Any]:
    """A RunConfig file as plain data; the API checks its keys.

    Raises:
        InvalidInput: the file cannot be read as a mapping.
    """
    if path is None:
        return {}
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidInput(f"{path} must hold a mapping of RunConfig keys")
    return data


async def start(home: Home, config: Path | None, iterations: int) -> None:
    async with client(home) as api:
        run = await api.post("/v1/runs", read_config(config))
        await api.post(f"/v1/runs/{run['id']}/iterations", {"count": iterations})
    print(run["id"])


async def watch(home: Home, run_id: str | None) -> None:
    async with client(home) as api:
        if run_id is None:
            runs = (await api.get("/v1/runs", limit=1))["items"]
            if not runs:
                raise NotFound("there is no run yet; start one with `rewardloop start`")
            run_id = runs[0]["id"]
        for view in await follow(api, run_id, console):
            shown = {key: view[key] for key in ("index", "state", "new_version", "error")}
            print(json.dumps(shown))


async def export(home: Home, run_id: str, output: Path) -> None:
    async with client(home) as api:
        rows = [row async for row in api.pairs(run_id)]
    if not rows:
        raise NotFound(f"run {run_id} has no preference pairs yet; see `rewardloop watch {run_id}`")
    written = write_preference_jsonl(rows, output)
    console.print(f"{written} pairs written to {output}", soft_wrap=True)
