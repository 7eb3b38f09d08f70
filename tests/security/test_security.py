"""The short form of `make security`, over real services with the stub engine."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.security import access, contract, floods, scripts
from tests.security.services import Services, running


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    block = running(tmp_path_factory.mktemp("security") / "home")
    with asyncio.Runner() as runner:
        yield runner.run(block.__aenter__())
        runner.run(block.__aexit__(None, None, None))


def test_no_route_opens_to_another_key_or_scope(services: Services) -> None:
    num_asked, holes = access.holes(services)
    assert holes == []
    assert num_asked > 400


def test_no_text_becomes_markup(services: Services) -> None:
    assert scripts.through(services.api, services.api_key) == []


def test_a_body_without_a_key_is_not_kept(services: Services) -> None:
    growth = floods.rss_growth_mb(services, 64, None)
    assert max(growth.values()) < 20, growth


def test_a_flood_is_refused_by_its_key_then_by_its_size(services: Services) -> None:
    for service, path in floods.paths(services):
        if path == "/admin/activate":
            continue  # another key opens it
        for length in (None, 200 * 2**20):
            refused = floods.flood(service.url, path, 1, "wrong", length)
            assert refused == 401, path
        key = services.api_key
        assert floods.flood(service.url, path, 0, key, 200 * 2**20) == 413, path


def test_half_a_body_is_answered_and_closed(services: Services) -> None:
    asked = [(services.judge, "/v1/chat/completions"), (services.generator, "/v1/completions")]
    asked.append((services.api, "/v1/runs"))
    with ThreadPoolExecutor() as pool:
        halves = [
            pool.submit(floods.half_body, service.url, path, services.api_key)
            for service, path in asked
        ]
    found = [half.result() for half in halves]
    assert [status for status, _ in found] == [408, 408, 408]
    assert all(seconds > 9 for _, seconds in found), found


def test_no_odd_body_ends_in_a_server_error(services: Services) -> None:
    for service, path in floods.paths(services):
        key = services.admin_key if path.startswith("/admin") else services.api_key
        for text in floods.DEEP:
            status = floods.deep_json(service.url, path, key, text)
            assert status is not None
            assert 400 <= status < 500, (service.name, path, text[:40], status)


@pytest.mark.parametrize("number", [2**31, 2**32, 2**63, 2**64, 10**400, -(2**63) - 1])
def test_no_large_number_ends_in_a_server_error(services: Services, number: int) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    message = {"role": "user", "content": "Hi"}
    ranked = [{"text": "a", "rank": number}, {"text": "b", "rank": 0}]
    asked = [
        ("GET", f"/v1/runs/{nobody}/pairs?after={number}", None),
        ("GET", f"/v1/runs/{nobody}/pairs?iteration={number}", None),
        ("GET", f"/v1/runs?limit={number}", None),
        ("GET", f"/v1/iterations?limit={number}", None),
        ("GET", f"/v1/runs/{number}", None),
        ("POST", f"/v1/runs?iterations={number}", {}),
        ("POST", "/v1/runs", {"seed": number}),
        ("POST", "/v1/runs", {"prompts": {"num_per_iteration": number}}),
        ("POST", f"/v1/runs/{nobody}/iterations", {"count": number}),
        (
            "POST",
            "/v1/datasets/seed/ranked",
            {"prompts": [{"messages": [message], "responses": ranked}]},
        ),
        ("POST", "/v1/evaluations", {"version_a": "base", "version_b": str(number)}),
    ]
    headers = {"authorization": f"Bearer {services.api_key}"}
    with httpx.Client(base_url=services.api.url, headers=headers) as client:
        for method, path, body in asked:
            answer = client.request(method, path, json=body)
            assert 400 <= answer.status_code < 500, (method, path[:80], answer.text[:200])
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/models/a%00b/answers?dataset=x", "/v1/datasets%00"])
def test_no_nul_in_a_path_ends_in_a_server_error(services: Services, path: str) -> None:
    headers = {"authorization": f"Bearer {services.api_key}"}
    with httpx.Client(base_url=services.api.url, headers=headers) as client:
        assert 400 <= (client.get(path)).status_code < 500


@pytest.mark.timeout(600)
def test_the_services_keep_to_their_contract(services: Services, tmp_path: Path) -> None:
    for service in (services.judge, services.api):
        found = contract.fuzz(service, services.api_key, tmp_path, num_examples=8, phases="fuzzing")
        assert found.server_errors == []
        assert found.violations == []
        assert found.num_cases >= 10
