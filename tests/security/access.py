"""Every route of every service with no key, with a wrong one, with another service's, and every
route of the API with a key of each scope.

A *hole* is a route that answers anything but 401 or 403 to a key that does not open it. The
routes are read from the services' own OpenAPI documents, and of the gate from its lists.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from rewardloop.records import Scope
from services.api.access import ROUTES
from services.generator.gate import ADMIN, PUBLIC
from tests.security.services import Service, Services

OPEN = {("GET", "/health"), ("GET", "/ready")}
METHODS = ("get", "post", "put", "patch", "delete")
AN_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Route:
    service: Service
    method: str
    path: str
    wrong_keys: tuple[str, ...]


def routes(services: Services) -> Iterator[Route]:
    for service in (services.api, services.judge):
        document = httpx.get(f"{service.url}/openapi.json").json()
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item and (method.upper(), path) not in OPEN:
                    yield Route(service, method.upper(), path, (services.admin_key,))
    for method, path in sorted(PUBLIC):
        yield Route(services.generator, method, path, (services.admin_key,))
    for method, path in sorted(ADMIN):
        yield Route(services.generator, method, path, (services.api_key,))


def holes(services: Services) -> tuple[int, list[str]]:
    """How many requests were sent, and which of them opened something."""
    found, num_asked = [], 0
    with httpx.Client(timeout=60) as client:
        for route in routes(services):
            for header in _headers(route):
                num_asked += 1
                status = client.send(_request(client, route, header)).status_code
                if status not in (401, 403):
                    told = header.get("authorization", "no key")[:12]
                    at = f"{route.service.name}: {route.method} {route.path}"
                    found.append(f"{at} {told} {status}")
        num_scoped, wrongly_open = _scoped(client, services)
    return num_asked + num_scoped, found + wrongly_open


def _scoped(client: httpx.Client, services: Services) -> tuple[int, list[str]]:
    """The API's routes with keys of one scope each: open to the route's own scope alone."""
    keys = {scope: _new_key(client, services, scope) for scope in Scope}
    found, num_asked = [], 0
    for (method, path), needed in ROUTES.items():
        for scope, key in keys.items():
            if needed is None:
                continue
            num_asked += 1
            route = Route(services.api, method, path, ())
            header = {"authorization": f"Bearer {key}"}
            status = client.send(_request(client, route, header)).status_code
            if (scope == needed) == (status in (401, 403)):
                found.append(f"api: {method} {path} with scope {scope} {status}")
    return num_asked, found


def _new_key(client: httpx.Client, services: Services, scope: Scope) -> str:
    answer = client.post(
        f"{services.api.url}/v1/keys",
        json={"name": f"only-{scope}", "scopes": [scope]},
        headers={"authorization": f"Bearer {services.api_key}"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def _request(client: httpx.Client, route: Route, headers: dict[str, str]) -> httpx.Request:
    url = route.service.url + re.sub(r"\{[^}]*\}", AN_ID, route.path)
    body = {} if route.method == "POST" else None
    return client.build_request(route.method, url, headers=headers, json=body)


def _headers(route: Route) -> Iterator[dict[str, str]]:
    yield {}
    yield {"authorization": "Bearer"}
    for key in ("wrong", *route.wrong_keys, *(f"{key}x" for key in route.wrong_keys)):
        yield {"authorization": f"Bearer {key}"}
    yield {"authorization": "Basic d3Jvbmc6d3Jvbmc="}
    yield {"x-api-key": route.wrong_keys[0]}
