"""No text of a run becomes markup in its report: scripts, handlers, links and forms stay text."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from rewardloop.report import render

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


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_text_in_any_place_of_a_report_stays_text(payload: str, data: dict[str, Any]) -> None:
    places = [(of, key) for of, key in texts_in(data) if key not in CHOOSES]
    assert len(places) > 50
    for of, key in places:
        of[key] = payload
    page = Page(render(data))
    assert page.active == []
    assert payload in "".join(page.text)


def test_the_checker_sees_what_it_looks_for() -> None:
    found = {payload: Page(payload).active for payload in PAYLOADS}
    harmless = {payload for payload, active in found.items() if not active}
    assert harmless == {PAYLOADS[7], PAYLOADS[8], PAYLOADS[9]}
