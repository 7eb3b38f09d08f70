"""Log lines of a request carry the ids of the work that it is part of."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from rewardloop import telemetry

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_IN_PATH = {
    "iterations": "iteration",
    "runs": "run",
    "evaluations": "evaluation",
}
_PATH = re.compile(rf"/v1/({'|'.join(_IN_PATH)})/({_UUID})(?:/|$)")


def work_of_request(scope: Scope) -> dict[str, str]:
    """What the caller says that it works on (`baggage`), and what the path names."""
    header = dict(scope["headers"]).get(telemetry.WORK_HEADER.encode(), b"")
    found = telemetry.work_of(header.decode("latin-1"))
    named = _PATH.match(scope["path"])
    return found | {_IN_PATH[named[1]]: named[2].lower()} if named else found


class NamesWork:
    """ASGI middleware. After an error that nobody handled the fields stay: the server logs its
    traceback after us, in the request's own task, which ends with that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        before = telemetry.current_work()
        telemetry.name_work(before | work_of_request(scope))
        await self._app(scope, receive, send)
        telemetry.name_work(before)
