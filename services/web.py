"""What our own FastAPI services (judge, API) share: keys, errors, health, metrics, start-up.

vLLM's server is not ours, so the generator's gate has its own.
"""

import argparse
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from rewardloop import telemetry
from rewardloop.config import Settings, load_settings
from rewardloop.config.files import KeyGivenTwice, parse_json
from rewardloop.errors import InvalidInput, NotFound, RewardloopError, Unauthorized
from rewardloop.process.exits import known_errors_told
from rewardloop.texts import storable

logger = logging.getLogger("rewardloop.web")

_bearer = HTTPBearer(auto_error=False)
Guard = Callable[..., Awaitable[None]]


def serve(
    make_app: Callable[[Settings], FastAPI], about: str, *, service: str, default_port: int
) -> None:
    """Run a service as a process: its options, its settings, its log."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=default_port)
    options = parser.parse_args()
    with known_errors_told():
        app = make_app(load_settings(service))
    telemetry.log_json()
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
    )


def key_guard(key: str) -> Guard:
    """A dependency that lets a request pass only with `Authorization: Bearer key`."""

    async def guard(given: HTTPAuthorizationCredentials | None = Depends(_bearer)) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), key.encode()):
            raise Unauthorized("send this service's key as `Authorization: Bearer <key>`")

    return guard


async def keys_given_once(request: Request) -> None:
    """A dependency that refuses a JSON body in which an object has a name twice. (FastAPI has
    parsed the body by then, and Python's parser takes the last of the two without a word.)

    Raises:
        InvalidInput: naming the key.
    """
    body = await request.body() if request.method in ("POST", "PUT", "PATCH") else b""
    try:
        parse_json(body)
    except KeyGivenTwice as error:
        raise InvalidInput(f"body: {error}") from error
    except (ValueError, RecursionError):
        pass  # no JSON: what the route says of that stands


def add_common_routes(
    app: FastAPI, guard: Guard, refresh_metrics: Callable[[], Awaitable[None]] | None = None
) -> None:
    """`GET /health`, open, and `GET /metrics`, with the key."""

    @app.get("/health", tags=["operations"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", tags=["operations"], dependencies=[Depends(guard)])
    async def metrics() -> Response:
        if refresh_metrics is not None:
            await refresh_metrics()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def add_error_handlers(app: FastAPI, body_of: Callable[[RewardloopError], dict[str, Any]]) -> None:
    """Answer every error with `body_of(error)`, as problem details or the OpenAI way."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        ours = _ours(request, error)
        if ours.status >= 500:
            where = f"{request.method} {request.url.path}"
            logger.warning("%s answered %d: %s", where, ours.status, ours.message)
        return JSONResponse(
            body_of(ours),
            ours.status,
            headers={"retry-after": "2"} if ours.transient else None,
            media_type="application/problem+json",
        )

    for kind in (RewardloopError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _ours(request: Request, error: Exception) -> RewardloopError:
    if isinstance(error, RewardloopError):
        return error
    if isinstance(error, RequestValidationError):
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return InvalidInput(storable("; ".join(told)))  # a key may hold half a surrogate pair
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    if error.status_code in (404, 405):
        return NotFound(f"{where} is not served here")
    return InvalidInput(f"{where}: {error.detail}")
