"""What our own FastAPI services (judge, API) share: keys, errors, health, metrics, start-up.

vLLM's server is not ours, so the generator's gate has its own.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Match

from rewardloop import telemetry
from rewardloop.config import Settings, load_settings
from rewardloop.errors import (
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    RewardloopError,
    Unexpected,
    UpstreamUnavailable,
)
from rewardloop.process.exits import known_errors_told
from services import contract
from services.front import Authenticate, ErrorForm, Front, Limits, error_headers
from services.headers import HEADERS
from services.slow_headers import close_slow_ones

logger = logging.getLogger("rewardloop.web")

key_wanted = HTTPBearer(auto_error=False, description="The API key.")
"""A dependency that tells OpenAPI that a route wants a key; `Front` looks at it."""
OPEN_PATHS = frozenset({"/health", "/", "/openapi.json"})
STARTUP_FAILURE = 3
"""uvicorn's own status."""
READY = "/ready"
"""Open too, where a service has it."""


def serve(
    make_app: Callable[[Settings], FastAPI], about: str, *, service: str, default_port: int
) -> None:
    """Run a service as a process: its options, its settings, its log."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=default_port)
    options = parser.parse_args()
    with known_errors_told():
        settings = load_settings(service)
        app = make_app(settings)
    telemetry.log_json()
    close_slow_ones()
    config = uvicorn.Config(
        app, host=options.host, port=options.port, log_config=None, access_log=False
    )
    server = Server(config, settings.notice_seconds if settings.stop_drain_seconds else 0.0)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class Server(uvicorn.Server):
    """Says "not ready" before it refuses connections, where the app has `GET /ready`."""

    def __init__(self, config: uvicorn.Config, notice_seconds: float) -> None:
        super().__init__(config)
        self._notice_seconds = notice_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal, or any but SIGTERM, ends the server at once; answers in flight end
        in either case."""
        leaving = getattr(self.config.app, "state", None)
        is_first = getattr(leaving, "is_ready", False)
        if sig != signal.SIGTERM or not is_first or not self._notice_seconds:
            super().handle_exit(sig, frame)
            return
        assert leaving is not None
        leaving.is_ready = False
        end = super().handle_exit
        asyncio.get_running_loop().call_later(self._notice_seconds, end, sig, frame)


def stand_in_front(
    app: FastAPI, authenticate: Authenticate, limits: Limits, *, openai: bool = False
) -> None:
    """What every service of ours has: the layer in front, one form of errors (problem details,
    or with `openai` the OpenAI way beside them), and a contract that declares them."""
    form = ErrorForm(RewardloopError.openai if openai else RewardloopError.problem)
    _add_error_handlers(app, form)
    open_paths = OPEN_PATHS | {READY} if openai else OPEN_PATHS
    app.add_middleware(
        Front, authenticate=authenticate, limits=limits, form=form, open_paths=open_paths
    )
    contract.declare(app, openai=openai)


async def known_parameters(request: Request) -> None:
    """A dependency that refuses a query parameter that the route does not have.

    Raises:
        InvalidInput: naming it.
    """
    dependant = get_flat_dependant(request.scope["route"].dependant)
    known = {field.alias for field in dependant.query_params}
    if unknown := sorted(request.query_params.keys() - known):
        told = f"this route has {', '.join(sorted(known))}" if known else "this route has none"
        raise InvalidInput(f"query: there is no parameter {unknown[0][:100]!r}; {told}")


def add_common_routes(
    app: FastAPI, refresh_metrics: Callable[[], Awaitable[None]] | None = None
) -> None:
    """`GET /health`, open, and `GET /metrics`, with the key."""

    @app.get("/health", tags=["operations"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/metrics",
        tags=["operations"],
        dependencies=[Depends(key_wanted)],
        response_class=PlainTextResponse,
    )
    async def metrics() -> Response:
        if refresh_metrics is not None:
            await refresh_metrics()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def add_readiness(app: FastAPI) -> None:
    """`GET /ready`, open: 503 once the server was told to end. For services that stand behind
    a load balancer."""
    app.state.is_ready = True

    @app.get(READY, tags=["operations"])
    async def ready() -> dict[str, str]:
        if not app.state.is_ready:
            raise UpstreamUnavailable("not ready: this service ends")
        return {"status": "ready"}


def _add_error_handlers(app: FastAPI, form: ErrorForm) -> None:
    async def answer(request: Request, error: Exception) -> Response:
        ours = _ours(request, error)
        if ours.status >= 500:
            where = f"{request.method} {request.url.path}"
            logger.warning("%s answered %d: %s", where, ours.status, ours.message)
        body = json.dumps(form.body_of(ours))  # ASCII: a message may quote half a surrogate pair
        # What nobody foresaw is answered outside of every middleware.
        headers = {**HEADERS, **error_headers(ours)}
        return Response(body, ours.status, headers=headers, media_type=form.media_type)

    for kind in (RewardloopError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _ours(request: Request, error: Exception) -> RewardloopError:
    if isinstance(error, RewardloopError):
        return error
    if isinstance(error, RequestValidationError):
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return InvalidInput("; ".join(told))
    if isinstance(error, HTTPException):
        return _of_the_router(request, error)
    return Unexpected("an error that no code foresaw; this service's log has it")


def _of_the_router(request: Request, error: HTTPException) -> RewardloopError:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return NotFound(f"{where} is not served here")
    if error.status_code == 405:
        allowed = _methods_at(request)
        told = " and ".join(allowed)
        return MethodNotAllowed(f"{where} is not served here; use {told}", allowed=allowed)
    return InvalidInput(f"{where}: {error.detail}")


def _methods_at(request: Request) -> list[str]:
    """Of every route at this path: the router itself names those of the first alone."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return sorted(found)
