"""One place for connections, retries and the translation of errors."""

from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from rewardloop import telemetry
from rewardloop.errors import (
    Forbidden,
    PromptTooLong,
    RewardloopError,
    Unauthorized,
    UpstreamMismatch,
    UpstreamUnavailable,
    from_problem,
)

MAX_CONNECTIONS = 1024
FORBIDDEN = f"urn:rewardloop:error:{Forbidden.kind}"
"""Our own API's word that a key lacks a scope; other servers' 403 says that they refuse it."""


def connect(base_url: str, key: str, *, timeout_seconds: float) -> httpx.AsyncClient:
    """A client of one server.

    Its transport is aiohttp's: httpx's own slows down more than tenfold with
    hundreds of requests in flight (httpx issue 3215).
    """
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"authorization": f"Bearer {key}"},
        timeout=httpx.Timeout(timeout_seconds, connect=5),
        transport=AiohttpTransport(limits=httpx.Limits(max_connections=MAX_CONNECTIONS)),
        event_hooks={"request": [_name_work]},
    )


async def _name_work(request: httpx.Request) -> None:
    """The server's log lines carry the same ids as ours."""
    if work := telemetry.work_header():
        request.headers[telemetry.WORK_HEADER] = work


async def call(
    client: httpx.AsyncClient, method: str, path: str, *, retry_seconds: float = 0, **kwargs: Any
) -> Any:
    """Send a request and return the decoded JSON answer.

    Transient failures are tried again for `retry_seconds`.

    Raises:
        RewardloopError: what the server answered, or UpstreamUnavailable.
    """
    async for attempt in attempts(retry_seconds):
        with attempt:
            return await call_once(client, method, path, **kwargs)
    raise AssertionError("unreachable: tenacity re-raises")


def attempts(seconds: float) -> AsyncRetrying:
    """Tries at one thing, for so long while it fails transiently: `async for`, `with`."""
    return AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, RewardloopError) and e.transient),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


async def call_once(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> Any:
    try:
        answer = await client.request(method, path, **kwargs)
    except httpx.TransportError as error:
        raise UpstreamUnavailable(
            f"{client.base_url} does not answer ({type(error).__name__}: {error})"
        ) from error
    if not answer.is_success:
        raise error_of(answer)
    try:
        return answer.json()
    except ValueError as error:
        raise UpstreamMismatch(
            f"{client.base_url} answered {path} with something else than JSON; is this the "
            "address of the service that is wanted?"
        ) from error


def error_of(answer: httpx.Response) -> RewardloopError:
    """What a failed answer, already read, means: our own problem details or the OpenAI form."""
    where = f"{answer.request.method} {answer.request.url}"
    body = _body_of(answer, where)
    if answer.status_code in (401, 403) and body.get("type") != FORBIDDEN:
        return Unauthorized(
            f"{where} refused the key; check REWARDLOOP_API_KEY, or on the embedded stack "
            "credentials.json of its home"
        )
    error = body.get("error")
    if isinstance(error, dict) and "type" not in body:
        message = str(error.get("message", body))
        if answer.status_code == 400 and "context length" in message:
            return PromptTooLong(message)
        body = {"detail": message}
    found = from_problem(body, answer.status_code)
    if "type" not in body and isinstance(found, UpstreamMismatch):
        return UpstreamMismatch(
            f"{where} answered {answer.status_code}: {found.message}; check the address, and the "
            "model's name where one is asked for"
        )
    return found


def _body_of(answer: httpx.Response, where: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text[:200]
    if isinstance(body, dict):
        return body
    return {"detail": f"{where} answered {answer.status_code}: {body}"}
