"""Headers that keep what we answer from being run, framed, guessed at or kept by a browser.

Invariants: every answer of our FastAPI services carries them; a page's own inline script and style
run because their digests stand in its policy, and nothing else runs or loads.
"""

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCKED = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {
    "content-security-policy": f"default-src 'none'; {_LOCKED}",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""What an answer has unless its route says otherwise: an answer is data, to be read by whoever
asked and by nobody after."""


class SafeHeaders:
    """ASGI middleware; a header that the route set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with)


def page_policy(html: str) -> str:
    """A content security policy that runs the page's inline scripts and styles, and lets it ask
    this server, and allows nothing else."""
    scripts, styles = _digests("script", html), _digests("style", html)
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        f"connect-src 'self'; {_LOCKED}"
    )


def _digests(tag: str, html: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    found = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
    return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"
