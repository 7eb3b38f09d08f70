"""Which run a command means, and what it says where there is none, or no stack."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewardloop.cli import importing, listing, remote
from rewardloop.cli.terminal import Console
from rewardloop.datasets import Format
from rewardloop.embedded.home import Addresses, Home
from rewardloop.errors import InvalidInput, NotFound, RewardloopError, UpstreamUnavailable

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
RUN = "01234567-89ab-cdef-0123-456789abcdef"
THE_RUN = {("GET", f"/v1/runs/{RUN}"): {"id": RUN}}
NO_ITERATION = {("GET", "/v1/iterations"): {"items": []}}


def home_of(folder: Path, url: str) -> Home:
    home = Home(folder)
    home.create()
    home.remember(Addresses(url, url, url, "postgresql://x", "redis://x"))
    return home


@pytest.fixture
def dead(tmp_path: Path) -> Home:
    """A home whose stack has ended; `stack.json` outlives it."""
    return home_of(tmp_path / "home", "http://127.0.0.1:9")


@pytest.fixture
async def failing(tmp_path: Path, serve: Serve) -> Callable[[RewardloopError], Awaitable[Home]]:
    """Makes a home whose API answers everything with an error."""

    async def make(error: RewardloopError) -> Home:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(error.problem(), status=error.status)

        return home_of(tmp_path / "home", await serve(answer))

    return make


async def test_a_run_that_is_not_there_is_no_empty_success(tmp_path: Path, serve: Serve) -> None:
    """Its list of iterations is empty, and no error."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v1/iterations":
            return web.json_response({"items": []})
        return web.json_response(NotFound(f"there is no run {RUN}").problem(), status=404)

    home = home_of(tmp_path / "home", await serve(answer))
    for asks in (
        remote.watch(home, RUN),
        remote.compare_policies(home, RUN, 0.0),
        remote.export(home, RUN, Path("pairs.jsonl")),
    ):
        with pytest.raises(NotFound, match=f"no run {RUN}"):
            await asks


async def test_what_cannot_be_a_runs_id_is_not_asked_for(dead: Home) -> None:
    for asks in (
        remote.watch(dead, "abc"),
        remote.report(dead, "abc", Path("report.html")),
        remote.export(dead, "../x", Path("pairs.jsonl")),
    ):
        with pytest.raises(InvalidInput, match=r"is no run's id; `rewardloop runs` lists them"):
            await asks


async def test_watch_of_a_run_without_iterations_says_so(stack: Any) -> None:
    home, _ = await stack({**THE_RUN, **NO_ITERATION})
    with pytest.raises(NotFound, match=f"run {RUN} has no iterations yet"):
        await remote.watch(home, RUN)


async def test_export_without_pairs_leaves_no_file(stack: Any, tmp_path: Path) -> None:
    nothing = {"items": [], "next_after": None}
    home, _ = await stack({**THE_RUN, ("GET", f"/v1/runs/{RUN}/pairs"): nothing})
    with pytest.raises(NotFound, match="no preference pairs yet"):
        await remote.export(home, RUN, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


async def test_a_stack_that_has_ended_is_said_to_be_down(dead: Home) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        await remote.start(dead, None, None, 1)
    assert "http://127.0.0.1:9 does not answer" in caught.value.message
    assert f"Start it with `rewardloop up --home {dead.folder}`" in caught.value.message


async def test_an_api_that_answers_503_is_not_said_to_be_down(failing: Any) -> None:
    home = await failing(UpstreamUnavailable("the database does not answer"))
    with pytest.raises(UpstreamUnavailable) as caught:
        await remote.start(home, None, None, 1)
    assert caught.value.message == "the database does not answer"


@pytest.mark.parametrize("name", ["my data", "a/b", "", "-x", "x" * 101, "B\u00fccher", "x\n"])
async def test_a_wrong_name_of_a_dataset_is_told_before_the_file_is_read(
    dead: Home, name: str
) -> None:
    for asks in (
        importing.import_file(dead, Path("absent"), name, Format.AUTO, False, "en"),
        importing.import_ranked(dead, Path("absent"), name, Format.AUTO, False, "en"),
        importing.inspect(dead, Path("absent"), name, Format.AUTO, False, "en", False),
    ):
        with pytest.raises(InvalidInput, match="letters, digits, dots, dashes and underscores"):
            await asks


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "console", Console(width=200))


@pytest.mark.usefixtures("wide")
async def test_runs_are_listed_with_their_states(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"id": RUN, "name": "[mine]", "created_at": "2026-11-08T11:41:07+02:00"}
    views = [{"index": index, "state": "succeeded"} for index in (0, 1)]
    views.append({"index": 2, "state": "failed"})
    home, _ = await stack(
        {("GET", "/v1/runs"): {"items": [run]}, ("GET", "/v1/iterations"): {"items": views}}
    )
    await listing.list_runs(home)
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == [RUN, "[mine]", "2026-11-08", "09:41", "2", "succeeded,", "1", "failed"]


async def test_without_a_run_the_list_says_how_to_start_one(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = await stack({("GET", "/v1/runs"): {"items": []}})
    await listing.list_runs(home)
    assert "rewardloop start" in capsys.readouterr().out


@pytest.mark.usefixtures("wide")
async def test_models_are_listed_with_the_one_that_serves(
    stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    created = {"created_at": "2026-11-08T09:41:07Z"}
    base = {"id": "base", "kind": "base", "parent": None, "serving": False, **created}
    new = {"id": "run-1-m2", "kind": "dpo", "parent": "base", "serving": True, **created}
    home, _ = await stack({("GET", "/v1/models"): {"items": [base, new]}})
    await listing.list_models(home)
    _, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["base", "base", "-", "2026-11-08", "09:41"],
        ["run-1-m2", "dpo", "base", "yes", "2026-11-08", "09:41"],
    ]
