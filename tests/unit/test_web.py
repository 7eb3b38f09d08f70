"""What our own services share: here, that a JSON body gives each name once."""

from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from rewardloop.errors import RewardloopError
from services.web import add_error_handlers, keys_given_once

HEADERS = {"content-type": "application/json"}


async def posted(body: bytes, headers: dict[str, str] = HEADERS) -> httpx.Response:
    app = FastAPI(dependencies=[Depends(keys_given_once)])
    add_error_handlers(app, RewardloopError.problem)

    @app.post("/echo")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        return await client.post("/echo", content=body, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed": 1, "seed": 1}',
        b'{"a": [{"seed": 1}, {"b": {"seed": 1, "c": 2, "seed": 3}}]}',
        b'{"seed": 1, "\\u0073eed": 2}',
        b'{"x": NaN, "seed": 1, "seed": 2}',
        b'\xef\xbb\xbf{"seed": 1, "seed": 2}',
        '{"seed": 1, "seed": 2}'.encode("utf-16"),
    ],
)
async def test_a_name_that_is_given_twice_is_refused(body: bytes) -> None:
    answer = await posted(body)
    assert answer.status_code == 422
    if not body.startswith(b"\xef"):  # Python's parser takes no byte order mark
        assert answer.json()["detail"].startswith("body: the key 'seed' is given twice")


async def test_equal_names_of_different_objects_pass() -> None:
    answer = await posted(b'{"a": {"seed": 1}, "b": {"seed": 2}, "c": [{"seed": 3}, {"seed": 4}]}')
    assert answer.status_code == 200
    assert answer.json()["c"] == [{"seed": 3}, {"seed": 4}]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"seed: 1", b"[" * 100_000])
async def test_what_is_no_object_is_refused_as_ever(body: bytes) -> None:
    answer = await posted(body)
    assert answer.status_code == 422
    assert "twice" not in answer.json()["detail"]
