"""Script payloads in every text of a run: none may become markup in the report, in the
dashboard, or in an answer that a browser would take for a page."""

import copy
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from rewardloop.report import render
from services.headers import page_policy
from tests.security.services import Service
from tests.unit.report.conftest import whole_run

DASHBOARD = Path(__file__).parents[2] / "services/api/static/index.html"
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</pre></details><script src=//evil></script>",
    "</style><script>alert(1)</script>",
    "</title><iframe srcdoc='<script>1</script>'>",
    "<a href=javascript:alert(1)>x</a>",
    "{{ 7 * 7 }}{% for x in data %}{% endfor %}",
    "<!--<script>-->",
    "&lt;script&gt;",
    "<base href=//evil><form action=//evil><input autofocus onfocus=alert(1)>",
    "\u2028<math><mtext></mtext><style><img src=x onerror=alert(1)>",
    "<meta http-equiv=refresh content='0;url=//evil'>",
)
ACTIVE = {"script", "iframe", "object", "embed", "form", "base", "link", "img", "input", "math"}


class Page(HTMLParser):
    """Counts what could run, load or send something; remembers the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ACTIVE:
            self.active.append(tag)
        for name, value in attrs:
            runs = name.startswith("on") or name in ("srcdoc", "formaction")
            if runs or "javascript:" in (value or "").lower():
                self.active.append(f"{tag} {name}")
        if tag == "meta" and dict(attrs).get("http-equiv") == "refresh":
            self.active.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def texts_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place of a text in nested data: its container and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        if isinstance(inner, str):
            yield value, key
        elif isinstance(inner, dict | list):
            yield from texts_in(inner)


CHOOSES = ("kind", "state", "phase", "mode", "created_at", "finished_at", "verdict", "reason")
"""Texts of ours, of a fixed set: which section is shown follows from them."""


def in_the_report(payload: str, data: dict[str, Any]) -> list[str]:
    """What became active of a report whose every text is the payload."""
    data = copy.deepcopy(data)
    for of, key in list(texts_in(data)):
        if key not in CHOOSES:
            of[key] = payload
    page = Page(render(data))
    if payload not in "".join(page.text):
        return [*page.active, f"{payload} is not shown as it is"]
    return page.active


def in_answers(payload: str, api: Service, key: str) -> list[str]:
    """Answers that repeat the payload and that a browser could run."""
    found = []
    headers = {"authorization": f"Bearer {key}"}
    asked = quote(payload, safe="")
    with httpx.Client(base_url=api.url, headers=headers) as client:
        for path in (f"/{asked}", f"/v1/runs/{asked}", f"/v1/models/{asked}/answers?dataset=x"):
            answer = client.get(path)
            kind = answer.headers["content-type"]
            policy = answer.headers.get("content-security-policy", "")
            guessed = answer.headers.get("x-content-type-options") != "nosniff"
            if "html" in kind or guessed or "default-src 'none'" not in policy:
                found.append(f"{path[:40]} {kind}")
    return found


def in_the_dashboard() -> list[str]:
    """Ways of the page to make markup of a text, and what its policy leaves open."""
    page = DASHBOARD.read_text(encoding="utf-8")
    ways = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc")
    policy = page_policy(page)
    return [way for way in ways if way in page] + ["unsafe"] * ("unsafe" in policy)


def through(api: Service, key: str) -> list[str]:
    data = whole_run()
    found = in_the_dashboard()
    for payload in PAYLOADS:
        found += in_the_report(payload, data) + in_answers(payload, api, key)
    return found
