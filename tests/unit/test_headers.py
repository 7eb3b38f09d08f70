"""Every answer says how a browser may treat it, and the dashboard runs its own script alone."""

import base64
import hashlib
import re
from pathlib import Path

import httpx
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from services.headers import HEADERS, SafeHeaders, page_policy

DASHBOARD = Path(__file__).parents[2] / "services/api/static/index.html"


async def asked(app: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(SafeHeaders(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        return await client.get(path)


async def test_data_errors_and_what_is_not_there_carry_the_headers() -> None:
    app = FastAPI()
    app.get("/data")(lambda: {})
    for path, status in (("/data", 200), ("/nothing", 404)):
        answer = await asked(app, path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "frame-ancestors 'none'" in HEADERS["content-security-policy"]
    assert HEADERS["cache-control"] == "no-store"


async def test_a_routes_own_header_stays() -> None:
    app = FastAPI()
    own = {"cache-control": "no-cache", "content-security-policy": "default-src 'self'"}
    app.get("/page")(lambda: PlainTextResponse("x", headers=own))
    answer = await asked(app, "/page")
    assert {name: answer.headers[name] for name in own} == own
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_runs_its_own_blocks_and_nothing_else() -> None:
    policy = page_policy("<style>a{}</style><script>\nf()\n</script><p onclick=x()>")
    digest = base64.b64encode(hashlib.sha256(b"\nf()\n").digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy


def test_the_dashboard_needs_nothing_that_its_policy_forbids() -> None:
    page = DASHBOARD.read_text(encoding="utf-8")
    assert len(re.findall("<script", page)) == page.count("<script>") == 1
    assert len(re.findall("<style", page)) == page.count("<style>") == 1
    assert not re.findall(r"<[^>]+\s(?:style|on\w+)\s*=", page), "an attribute with style or script"
    assert not re.findall(r"setAttribute\(\s*[\"'](?:style|on)", page)
    assert "javascript:" not in page
