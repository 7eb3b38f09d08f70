"""What every route of our own services can answer besides its result, told in OpenAPI.

The answers follow from what a route does (whether it wants a key, names a thing in its path,
reads a body, changes what is stored), and their statuses and kinds from the classes of errors,
so a new route is declared whole without a word of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rewardloop.errors import (
    BodyTooSlow,
    Conflict,
    Forbidden,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    RewardloopError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unexpected,
    UnsupportedMedia,
    UpstreamMismatch,
    UpstreamRejected,
    UpstreamUnavailable,
)

Kind = type[RewardloopError]

_OF_ANY: tuple[Kind, ...] = (MethodNotAllowed, InvalidInput, Unexpected)
"""Of them 422 even without a parameter: one that the route does not have is refused."""
_OF_A_KEY: tuple[Kind, ...] = (Unauthorized, Forbidden, TooManyRequests, UpstreamUnavailable)
_OF_A_BODY: tuple[Kind, ...] = (BodyTooSlow, TooLarge, UnsupportedMedia)
_OF_AN_ENGINE: tuple[Kind, ...] = (UpstreamRejected, UpstreamMismatch)
_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
MEDIA_TYPE = "application/problem+json"

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details; further members are the error's context.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["message", "type", "code", "param"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "code": {"type": "integer"},
        "param": {"type": ["string", "null"]},
    },
}


def declare(app: FastAPI, *, openai: bool = False) -> None:
    """Let the app's OpenAPI document tell every error that its routes can answer.

    `openai`: the service answers errors the OpenAI way, beside the problem details.
    """
    app.openapi = _document(app, openai)  # type: ignore[method-assign]


def _document(app: FastAPI, openai: bool) -> Callable[[], dict[str, Any]]:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = _with_openai(_PROBLEM) if openai else _PROBLEM
            for path, method, operation in _operations(found):
                operation["responses"] |= _responses(_errors_of(path, method, operation))
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = found
        return app.openapi_schema

    return document


def _with_openai(problem: dict[str, Any]) -> dict[str, Any]:
    properties = {**problem["properties"], "error": _OPENAI_ERROR}
    return {**problem, "required": [*problem["required"], "error"], "properties": properties}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                yield path, method, operation


def _errors_of(path: str, method: str, operation: dict[str, Any]) -> Iterator[Kind]:
    yield from _OF_ANY
    if operation.get("security"):
        yield from _OF_A_KEY
    if "{" in path:
        yield NotFound
    if method != "get":
        yield from (NotFound, Conflict)
    if "requestBody" in operation:
        yield from _OF_A_BODY
    if path == "/ready":
        yield UpstreamUnavailable
    if path == "/v1/chat/completions":
        yield from _OF_AN_ENGINE


def _responses(kinds: Iterator[Kind]) -> dict[str, Any]:
    """By status, with the kinds that have it."""
    by_status: dict[int, set[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, set()).add(kind)
    return {str(status): _response(found) for status, found in sorted(by_status.items())}


def _response(kinds: set[Kind]) -> dict[str, Any]:
    told = [f"`{kind.kind}`: {_first_line(kind)}" for kind in sorted(kinds, key=lambda k: k.kind)]
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": " ".join(told), "content": {MEDIA_TYPE: {"schema": schema}}}


def _first_line(kind: Kind) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
