"""Each route has its scope, in one table that knows every route of the application."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.routing import Route

from rewardloop.config import Settings
from rewardloop.errors import Forbidden, Unauthorized
from rewardloop.records import Scope
from rewardloop.redaction import KEY_PREFIX
from services.api import access
from services.api.app import make_app
from tests.unit.cases import for_each

KEY = "the-key-of-the-settings"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """Over a database and a broker that nothing here asks."""
    return make_app(
        Settings(
            database_url=SecretStr("postgresql+psycopg://me:secret@127.0.0.1:1/none"),
            broker_url=SecretStr("redis://127.0.0.1:1/0"),
            api_key=SecretStr(KEY),
            admin_key=SecretStr("admin-key-of-the-tests"),
            checkpoint_root=tmp_path,
        )
    )


def served(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path


def test_the_table_knows_every_route_and_no_other(app: FastAPI) -> None:
    """Give a new route its scope in `ROUTES`; one without is closed to everybody's surprise."""
    assert set(served(app)) == set(access.ROUTES)


def test_open_are_the_page_the_health_and_the_contract_alone() -> None:
    is_open = {path for (_, path), scope in access.ROUTES.items() if scope is None}
    assert is_open == {"/", "/health", "/openapi.json"}


@for_each("route, scope", access.ROUTES.items())
def test_the_method_tells_what_a_route_may_need(
    route: tuple[str, str], scope: Scope | None
) -> None:
    """What changes something needs more than `read`; these only look, though they are POSTs."""
    method, path = route
    looks = ("/pairing", "/compare", "/inspect")
    if method != "GET" and not path.endswith(looks):
        assert scope in (Scope.RUN, Scope.ADMIN)
    if "/keys" in path:
        assert scope is Scope.ADMIN


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/runs", Scope.RUN),
        ("GET", "/v1/runs/any/pairs", Scope.EXPORT),
        ("POST", "/v1/datasets/inspect", Scope.READ),
        ("DELETE", "/v1/keys/x", Scope.ADMIN),
        ("GET", "/v1/runs/", None),
        ("DELETE", "/v1/runs", None),
        ("GET", "/v1/runs/a/b/pairs", None),
    ],
)
def test_a_path_finds_its_scope(method: str, path: str, scope: Scope | None) -> None:
    assert access.needed_scope(method, path) is scope


def connection(key: str | None, path: str = "/v1/runs") -> dict[str, object]:
    headers = [] if key is None else [(b"authorization", key.encode("latin-1"))]
    return {"type": "http", "method": "GET", "path": path, "headers": headers}


async def test_the_settings_key_has_every_scope(app: FastAPI) -> None:
    caller = await app.state.access.authenticate(connection(f"bearer {KEY}"))
    assert caller == access.Caller(access.SETTINGS_KEY, frozenset(Scope))


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"),
        *(f"Bearer x {KEY}", "Bearer \xe9\xff", f"Bearer {'k' * 100_000}"),
    ],
)
async def test_another_key_opens_nothing_and_asks_no_database(
    app: FastAPI, header: str | None
) -> None:
    with pytest.raises(Unauthorized):
        await app.state.access.authenticate(connection(header))


async def test_a_path_that_is_not_there_needs_a_key_too(app: FastAPI) -> None:
    with pytest.raises(Unauthorized):
        await app.state.access.authenticate(connection(None, "/v1/nothing"))


async def test_a_key_that_was_found_is_remembered_for_a_while(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = app.state.access
    asked = []

    async def look_up(key: str) -> access.Caller:
        asked.append(key)
        caller = access.Caller("reader", frozenset({"read"}))
        known._remembered[access.api_keys.digest(key)] = (access.time.monotonic(), caller)
        return caller

    monkeypatch.setattr(known, "_looked_up", look_up)
    header = f"Bearer {KEY_PREFIX}some"
    for _ in range(3):
        assert (await known.authenticate(connection(header))).name == "reader"
    assert len(asked) == 1
    known.forget()
    await known.authenticate(connection(header))
    assert len(asked) == 2
    monkeypatch.setattr(access, "REMEMBERED_SECONDS", 0.0)
    await known.authenticate(connection(header))
    assert len(asked) == 3


async def test_a_missing_scope_is_named(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(_: str) -> access.Caller:
        return access.Caller("reader", frozenset({"read", "run"}))

    monkeypatch.setattr(app.state.access, "_looked_up", look_up)
    header = f"Bearer {KEY_PREFIX}some"
    with pytest.raises(
        Forbidden, match=r"'reader' lacks the scope `export`; it has read, run"
    ) as caught:
        await app.state.access.authenticate(connection(header, "/v1/runs/x/pairs"))
    assert caught.value.problem()["scope"] == "export"
