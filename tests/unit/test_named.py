"""Log lines of a request carry the ids that its caller or its path names."""

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from rewardloop import telemetry
from services.named import NamesWork, work_of_request

ID = "01234567-89AB-cdef-0123-456789abcdef"


def scope(path: str, baggage: str = "") -> Scope:
    return {"type": "http", "path": path, "headers": [(b"baggage", baggage.encode())]}


@pytest.mark.parametrize(
    ("path", "baggage", "found"),
    [
        ("/v1/iterations/" + ID, "", {"iteration": ID.lower()}),
        (f"/v1/runs/{ID}/pairs", "iteration=i", {"run": ID.lower(), "iteration": "i"}),
        (f"/v1/evaluations/{ID}", "", {"evaluation": ID.lower()}),
        ("/v1/chat/completions", "iteration=i,run=r", {"iteration": "i", "run": "r"}),
        (f"/v1/iterations/{ID}x", "", {}),
        ("/v1/iterations/forged", "other=1", {}),
        (f"/x/v1/runs/{ID}", "", {}),
    ],
)
def test_a_request_names_its_work(path: str, baggage: str, found: dict[str, str]) -> None:
    assert work_of_request(scope(path, baggage)) == found


def test_without_the_header_nothing_is_named() -> None:
    assert work_of_request({"type": "http", "path": "/", "headers": []}) == {}


async def handled(fails: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The work that the application saw, and what the server sees after it."""
    seen: list[dict[str, str]] = []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        seen.append(telemetry.current_work())
        if fails:
            raise ZeroDivisionError

    async def server() -> dict[str, str]:
        nothing: Any = None
        with contextlib.suppress(ZeroDivisionError):
            await NamesWork(app)(scope("/", "iteration=i"), nothing, nothing)
        return telemetry.current_work()

    after = await asyncio.create_task(server())
    return seen[0], after


async def test_the_work_ends_with_the_request() -> None:
    assert await handled(fails=False) == ({"iteration": "i"}, {})


async def test_what_the_server_logs_of_an_error_is_named_too() -> None:
    assert await handled(fails=True) == ({"iteration": "i"}, {"iteration": "i"})
