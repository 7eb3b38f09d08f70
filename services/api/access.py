"""Who may call which route of the API, decided before anything of a body is read.

Invariants: every route stands in `ROUTES` with the scope that it needs (a test compares the table
with the application); what stands there with None is open; a path that is served nowhere needs
a key like any other, so that nobody without one learns what is there. The key in the settings has
every scope: services use it among each other. Other keys are rows (`store.api_keys`).
"""

import hmac
import time
from typing import Annotated

from fastapi import Depends, Request
from starlette.routing import compile_path
from starlette.types import Scope as Connection

from rewardloop.errors import Forbidden, Unauthorized
from rewardloop.records import Scope
from rewardloop.redaction import KEY_PREFIX
from rewardloop.store import Store, api_keys
from services.front import Caller

REMEMBERED_SECONDS = 5.0
"""A key that was found in Postgres is not looked up again for so long, so one that was revoked
elsewhere may open this process for as long."""
MAX_REMEMBERED = 1000
_LONGEST_KEY = 512
SETTINGS_KEY = "the settings' key"
"""No key of a row has such a name, so none shares its part of requests."""

READ, RUN, EXPORT, ADMIN = Scope
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/"): None,
    ("GET", "/health"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/metrics"): READ,
    ("POST", "/v1/runs"): RUN,
    ("GET", "/v1/runs"): READ,
    ("GET", "/v1/runs/{run_id}"): READ,
    ("POST", "/v1/runs/{run_id}/iterations"): RUN,
    ("GET", "/v1/runs/{run_id}/pairs"): EXPORT,
    ("GET", "/v1/runs/{run_id}/report"): READ,
    ("GET", "/v1/runs/{run_id}/conformance"): READ,
    ("GET", "/v1/iterations"): READ,
    ("GET", "/v1/iterations/{iteration_id}"): READ,
    ("GET", "/v1/iterations/{iteration_id}/scores"): READ,
    ("GET", "/v1/iterations/{iteration_id}/metrics"): READ,
    ("POST", "/v1/iterations/{iteration_id}/pairing"): READ,
    ("POST", "/v1/iterations/{iteration_id}/pause"): RUN,
    ("POST", "/v1/iterations/{iteration_id}/resume"): RUN,
    ("POST", "/v1/iterations/{iteration_id}/cancel"): RUN,
    ("POST", "/v1/iterations/{iteration_id}/retry"): RUN,
    ("GET", "/v1/iterations/{iteration_id}/dead-prompts"): READ,
    ("POST", "/v1/iterations/{iteration_id}/dead-prompts/retry"): RUN,
    ("GET", "/v1/models"): READ,
    ("GET", "/v1/models/{version}/answers"): EXPORT,
    ("POST", "/v1/evaluations"): RUN,
    ("GET", "/v1/evaluations"): READ,
    ("GET", "/v1/evaluations/{evaluation_id}"): READ,
    ("POST", "/v1/evaluations/{evaluation_id}/cancel"): RUN,
    ("POST", "/v1/evaluations/{evaluation_id}/retry"): RUN,
    ("GET", "/v1/datasets"): READ,
    ("POST", "/v1/datasets/{dataset}/prompts"): RUN,
    ("POST", "/v1/datasets/{dataset}/ranked"): RUN,
    ("POST", "/v1/datasets/{dataset}/compare"): READ,
    ("POST", "/v1/datasets/inspect"): READ,
    ("POST", "/v1/keys"): ADMIN,
    ("GET", "/v1/keys"): ADMIN,
    ("DELETE", "/v1/keys/{key_id}"): ADMIN,
}
_PATTERNS = [(method, compile_path(path)[0], scope) for (method, path), scope in ROUTES.items()]


class Access:
    """`authenticate` for one API process."""

    def __init__(self, store: Store, key: str) -> None:
        """`key` is the settings' own."""
        self._store = store
        self._key = key.encode()
        self._remembered: dict[str, tuple[float, Caller]] = {}

    async def authenticate(self, connection: Connection) -> Caller:
        """Who calls, by the headers alone.

        Raises:
            Unauthorized: no key, a wrong one or a revoked one.
            Forbidden: the key lacks the route's scope.
        """
        key = _bearer(connection)
        needed = needed_scope(connection["method"], connection["path"])
        caller = await self._caller(key)
        if needed is not None and needed not in caller.scopes:
            raise Forbidden(
                f"the key {caller.name!r} lacks the scope `{needed}`; it has "
                f"{', '.join(sorted(caller.scopes))}. Make one that has it: "
                f"rewardloop keys create NAME --scope {needed}",
                scope=needed,
            )
        return caller

    async def _caller(self, key: str) -> Caller:
        if hmac.compare_digest(key.encode("utf-8", "surrogateescape"), self._key):
            return Caller(SETTINGS_KEY, frozenset(Scope))
        found = self._known(key) if key.startswith(KEY_PREFIX) else None
        if found is None and key.startswith(KEY_PREFIX):
            found = await self._looked_up(key)
        if found is None:
            raise Unauthorized(
                "the key is missing, wrong or revoked; send one as `Authorization: Bearer <key>`"
            )
        return found

    def _known(self, key: str) -> Caller | None:
        since, caller = self._remembered.get(api_keys.digest(key), (0.0, None))
        return caller if time.monotonic() - since < REMEMBERED_SECONDS else None

    async def _looked_up(self, key: str) -> Caller | None:
        async with self._store.transaction() as session:
            row = await api_keys.find(session, key)
        if row is None:
            return None
        caller = Caller(row.name, frozenset(row.scopes))
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[api_keys.digest(key)] = (time.monotonic(), caller)
        return caller

    def forget(self) -> None:
        """Look every key up again: one was revoked here."""
        self._remembered.clear()


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope of the route that serves this; None where there is no such route."""
    for verb, pattern, scope in _PATTERNS:
        if verb == method and pattern.match(path):
            return scope
    return None


def _bearer(connection: Connection) -> str:
    given = dict(connection["headers"]).get(b"authorization", b"")
    kind, _, key = given.decode("latin-1").partition(" ")
    return key.strip() if kind.lower() == "bearer" and len(key) <= _LONGEST_KEY else ""


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["caller"]
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]
