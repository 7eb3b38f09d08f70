"""API keys on the real database: made, scoped, used, revoked."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest

from rewardloop.records import Scope
from rewardloop.store import api_keys
from services.api import access

NOBODY = "00000000-0000-4000-8000-000000000000"
Make = Callable[..., Awaitable[dict[str, str]]]


@pytest.fixture
async def api(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the settings' key."""
    async with world.api() as client:
        yield client


@pytest.fixture
def make(api: httpx.AsyncClient) -> Make:
    """Makes a key and returns the header that sends it."""

    async def made(name: str, *scopes: Scope) -> dict[str, str]:
        answer = await api.post("/v1/keys", json={"name": name, "scopes": list(scopes)})
        assert answer.status_code == 201, answer.text
        return {"authorization": f"Bearer {answer.json()['key']}"}

    return made


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_a_key_is_shown_once_and_stored_as_its_digest(
    api: httpx.AsyncClient, world: Any
) -> None:
    asked = {"name": "ci", "scopes": ["run", "read", "run"]}
    made = (await api.post("/v1/keys", json=asked)).json()
    key = made.pop("key")
    assert re.fullmatch(r"rlk_[\w-]{43}", key)  # 256 bits
    assert (made["name"], made["scopes"]) == ("ci", ["read", "run"])
    assert (await api.get("/v1/keys")).json() == {"items": [made]}
    (row,) = await world.rows("SELECT * FROM api_keys")
    assert row["sha256"] == api_keys.digest(key)
    assert key not in str(row)
    assert await world.value("SELECT count(*) FROM events WHERE kind = 'key.created'") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": ["read"], "key": "mine"},
        {"name": "", "scopes": ["read"]},
        {"name": "a\x1b[2J", "scopes": ["read"]},
        {"name": "a" * 101, "scopes": ["read"]},
        {"name": "x\n", "scopes": ["read"]},
        {"scopes": ["read"]},
    ],
)
async def test_an_odd_key_is_refused(api: httpx.AsyncClient, world: Any, body: Any) -> None:
    assert kind(await api.post("/v1/keys", json=body)) == (422, "invalid-input")
    assert await world.value("SELECT count(*) FROM api_keys") == 0


async def test_a_name_means_one_key_that_works(api: httpx.AsyncClient, make: Make) -> None:
    await make("ci", Scope.READ)
    again = {"name": "ci", "scopes": ["read"]}
    assert kind(await api.post("/v1/keys", json=again)) == (409, "conflict")
    (key,) = (await api.get("/v1/keys")).json()["items"]
    await api.delete(f"/v1/keys/{key['id']}")
    await make("ci", Scope.READ)
    assert len((await api.get("/v1/keys")).json()["items"]) == 2


async def test_a_revoked_key_opens_nothing(api: httpx.AsyncClient, world: Any, make: Make) -> None:
    header = await make("ci", Scope.READ)
    assert (await api.get("/v1/runs", headers=header)).status_code == 200
    (key,) = (await api.get("/v1/keys")).json()["items"]
    revoked = (await api.delete(f"/v1/keys/{key['id']}")).json()
    assert revoked["revoked_at"] is not None
    assert kind(await api.get("/v1/runs", headers=header)) == (401, "unauthorized")
    again = (await api.delete(f"/v1/keys/{key['id']}")).json()
    assert again["revoked_at"] == revoked["revoked_at"]
    assert await world.value("SELECT count(*) FROM events WHERE kind = 'key.revoked'") == 1
    assert kind(await api.delete(f"/v1/keys/{NOBODY}")) == (404, "not-found")


async def test_a_key_that_was_revoked_elsewhere_opens_no_longer_than_it_is_remembered(
    api: httpx.AsyncClient, world: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = await make("ci", Scope.READ)
    assert (await api.get("/v1/runs", headers=header)).status_code == 200
    await world.rows("UPDATE api_keys SET revoked_at = now() RETURNING 1")
    assert (await api.get("/v1/runs", headers=header)).status_code == 200
    monkeypatch.setattr(access, "REMEMBERED_SECONDS", 0.0)
    assert (await api.get("/v1/runs", headers=header)).status_code == 401


async def test_its_last_use_is_noted_at_most_once_a_minute(
    api: httpx.AsyncClient, world: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBERED_SECONDS", 0.0)  # each request looks the key up
    header = await make("ci", Scope.READ)

    async def used() -> datetime | None:
        await api.get("/v1/runs", headers=header)
        found: datetime | None = await world.value("SELECT last_used_at FROM api_keys")
        return found

    first = await used()
    assert first is not None
    assert await used() == first
    await world.rows("UPDATE api_keys SET last_used_at = now() - interval '61 s' RETURNING 1")
    later = await used()
    assert later is not None
    assert later > first


def sample(path: str) -> str:
    """The path with something in place of its parameters."""
    return re.sub(r"\{\w+\}", NOBODY, path)


async def test_every_route_with_every_key(api: httpx.AsyncClient, make: Make) -> None:
    """No key, a wrong one, each scope alone, and all but the one that is needed."""
    alone = {scope: await make(f"only-{scope}", scope) for scope in Scope}
    wrong = {"authorization": f"Bearer {access.KEY_PREFIX}{'A' * 43}"}
    nothing = {"authorization": ""}
    holes = []
    for (method, path), needed in access.ROUTES.items():
        url = sample(path)
        if needed is None:
            assert (await api.request(method, url, headers=nothing)).status_code == 200
            continue
        for header in (nothing, wrong):
            answer = await api.request(method, url, headers=header)
            if kind(answer) != (401, "unauthorized"):
                holes.append((method, path, "no key"))
        for scope, header in alone.items():
            answer = await api.request(method, url, headers=header)
            if (answer.status_code == 403) is (scope == needed):
                holes.append((method, path, scope))
            if answer.status_code == 403:
                assert needed in answer.json()["detail"]
    assert holes == []


async def test_unknown_paths_need_a_key(api: httpx.AsyncClient) -> None:
    for path in ("/v1/nothing", "/docs", "/redoc", "/v1/keys/x/y"):
        assert (await api.get(path, headers={"authorization": ""})).status_code in (401, 404)


async def test_a_report_without_the_scope_export_holds_no_texts(
    api: httpx.AsyncClient, world: Any, make: Make
) -> None:
    await world.with_base()
    await world.add_prompts("one", "two")
    (iteration_id,) = await world.new_run()
    await world.judged(iteration_id, {1: [[5.0], [1.0]], 2: [[4.0], [2.0]]})
    await world.advance(iteration_id)
    run = (await api.get("/v1/runs")).json()["items"][0]["id"]
    whole = (await api.get(f"/v1/runs/{run}/report")).json()
    header = await make("reader", Scope.READ)
    seen = (await api.get(f"/v1/runs/{run}/report", headers=header)).json()
    assert [len(iteration["examples"]) for iteration in whole["iterations"]] == [2]
    assert [iteration["examples"] for iteration in seen["iterations"]] == [[]]
    assert seen["examples_withheld"]
    assert "answer 0 to prompt" in str(whole)
    assert "answer 0 to prompt" not in str(seen)


async def test_a_key_works_while_postgres_is_away_only_if_it_is_the_settings(
    api: httpx.AsyncClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = await make("ci", Scope.READ)
    access_of = api._transport.app.state.access  # type: ignore[attr-defined]
    monkeypatch.setattr(
        access_of, "_store", type(access_of._store)("postgresql+psycopg://a:b@127.0.0.1:1/c")
    )
    assert kind(await api.get("/v1/runs", headers=header)) == (503, "upstream-unavailable")
    assert (await api.get("/v1/runs")).status_code == 200
