"""What our own services share: errors in one form, and a contract that declares them."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, Depends, FastAPI, Query

from rewardloop.errors import Conflict
from services.front import Limits, one_key
from services.request_body import BodyRule
from services.web import add_common_routes, key_wanted, known_parameters, stand_in_front

KEY = "a-key-of-16-chars"


def service(openai: bool = False) -> FastAPI:
    app = FastAPI(dependencies=[Depends(known_parameters)], redirect_slashes=False)
    stand_in_front(app, one_key(KEY), Limits(10, 1000, BodyRule(10_000)), openai=openai)
    add_common_routes(app)

    @app.get("/things", dependencies=[Depends(key_wanted)])
    async def things(limit: Annotated[int, Query(le=5)] = 5) -> int:
        return limit

    @app.post("/things", dependencies=[Depends(key_wanted)])
    async def add(body: Annotated[dict[str, Any], Body()]) -> int:
        if "broken" in body:
            raise ZeroDivisionError
        raise Conflict("there is one; \ud83d")

    @app.delete("/things/{name}", dependencies=[Depends(key_wanted)])
    async def remove(name: str) -> str:
        return name

    return app


async def ask(method: str, path: str, *, openai: bool = False, **how: Any) -> httpx.Response:
    transport = httpx.ASGITransport(service(openai), raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://web", headers=headers
    ) as client:
        return await client.request(method, path, **how)


@pytest.mark.parametrize(
    ("method", "path", "how", "status", "kind"),
    [
        ("GET", "/things", {"headers": {"authorization": ""}}, 401, "unauthorized"),
        ("GET", "/nothing", {}, 404, "not-found"),
        ("GET", "/things/", {}, 404, "not-found"),
        ("PUT", "/things", {}, 405, "method-not-allowed"),
        ("POST", "/things", {"json": {}}, 409, "conflict"),
        ("POST", "/things", {"content": b"x" * 10_001}, 413, "too-large"),
        ("POST", "/things", {"content": b"a=b"}, 415, "unsupported-media-type"),
        ("POST", "/things", {"json": []}, 422, "invalid-input"),
        ("GET", "/things?limit=6", {}, 422, "invalid-input"),
        ("GET", "/things?limmit=6", {}, 422, "invalid-input"),
        ("POST", "/things", {"json": {"broken": 1}}, 500, "unexpected"),
    ],
)
async def test_every_error_has_one_form_and_is_declared(
    method: str, path: str, how: dict[str, Any], status: int, kind: str
) -> None:
    answer = await ask(method, path, **how)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:rewardloop:error:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"
    operation = service().openapi()["paths"]["/things"].get(method.lower())
    if operation and path.startswith("/things") and status != 404:
        assert f"`{kind}`" in operation["responses"][str(status)]["description"]


async def test_an_unforeseen_error_says_nothing_of_the_inside() -> None:
    assert "ZeroDivision" not in (await ask("POST", "/things", json={"broken": 1})).text


async def test_the_methods_of_a_path_are_named_whole() -> None:
    answer = await ask("PATCH", "/things")
    assert answer.headers["allow"] == "GET, POST"
    assert "use GET and POST" in answer.json()["detail"]


async def test_an_unknown_parameter_is_named_with_those_that_there_are() -> None:
    answer = await ask("GET", "/things?limmit=3")
    assert answer.json()["detail"] == (
        "query: there is no parameter 'limmit'; this route has limit"
    )


async def test_the_openai_form_stands_beside_the_problem() -> None:
    problem = (await ask("POST", "/things", openai=True, json={})).json()
    assert problem["error"]["type"] == "conflict"
    assert problem["error"]["message"] == problem["detail"]
    schema = service(openai=True).openapi()["components"]["schemas"]["Problem"]
    assert set(schema["required"]) <= problem.keys()


def test_what_a_route_does_decides_what_it_declares() -> None:
    paths = service().openapi()["paths"]
    assert sorted(paths["/health"]["get"]["responses"]) == ["200", "405", "422", "500"]
    reads = ["200", "401", "403", "405", "422", "429", "500", "503"]
    assert sorted(paths["/things"]["get"]["responses"]) == reads
    writes = sorted([*reads, "404", "408", "409", "413", "415"])
    assert sorted(paths["/things"]["post"]["responses"]) == writes
    assert sorted(paths["/things/{name}"]["delete"]["responses"]) == sorted([*reads, "404", "409"])
