"""Every route of the API with a key of each scope alone.

A *hole* is a route that lets a key through that lacks its scope, or refuses the one that has it.
"""

import re
from collections.abc import Iterator

import httpx

from rewardloop.records import Scope
from services.api.access import ROUTES
from tests.security.access import AN_ID
from tests.security.services import Services


def holes(services: Services) -> tuple[int, list[str]]:
    """How many requests were sent, and what they found."""
    found, num_asked = [], 0
    with httpx.Client(base_url=services.api.url, timeout=60) as client:
        keys = {scope: _made(client, services.api_key, scope) for scope in Scope}
        for method, path, needed in _guarded():
            for scope, key in keys.items():
                num_asked += 1
                status = _status(client, method, path, key)
                if (status == 403) is (scope == needed) or status in (401, 500):
                    found.append(f"{method} {path} needs {needed}, has {scope}: {status}")
    return num_asked, found


def _guarded() -> Iterator[tuple[str, str, Scope]]:
    for (method, path), needed in ROUTES.items():
        if needed is not None:
            yield method, path, needed


def _made(client: httpx.Client, key: str, scope: Scope) -> str:
    answer = client.post(
        "/v1/keys",
        json={"name": f"only-{scope}", "scopes": [scope]},
        headers={"authorization": f"Bearer {key}"},
    )
    return str(answer.raise_for_status().json()["key"])


def _status(client: httpx.Client, method: str, path: str, key: str) -> int:
    url = re.sub(r"\{[^}]*\}", AN_ID, path)
    headers = {"authorization": f"Bearer {key}"}
    return client.request(method, url, headers=headers, json={"no": "such"}).status_code
