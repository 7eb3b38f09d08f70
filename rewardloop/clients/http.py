"""One place for connections, retries and the translation of errors."""

import itertools
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from rewardloop.clients.allowance import MAX_CALLS
from rewardloop.clients.quick import QuickClient
from rewardloop.errors import (
    Forbidden,
    Overdue,
    PromptTooLong,
    RewardloopError,
    Unauthorized,
    UnreadableAnswer,
    UpstreamFailed,
    UpstreamMismatch,
    UpstreamUnavailable,
    from_problem,
)

FORBIDDEN = f"urn:rewardloop:error:{Forbidden.kind}"
"""Our own API's word that a key lacks a scope; other servers' 403 says that they refuse it."""
MAX_FAILED_TRIES = 3
"""Of one call that its server took and did not answer well. A server that is away or busy is
asked for longer, since that is nothing that the request could have caused."""


T = TypeVar("T")


def connect(base_url: str, key: str, *, timeout_seconds: float) -> httpx.AsyncClient:
    """A client of one server.

    Its transport is aiohttp's: httpx's own slows down more than tenfold with
    hundreds of requests in flight (httpx issue 3215).
    """
    return QuickClient(
        base_url,
        key,
        AiohttpTransport(verify=_certificates(), limits=httpx.Limits(max_connections=MAX_CALLS)),
        httpx.Timeout(timeout_seconds, connect=5),
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Read once for a process: it takes longer than many a request."""
    return httpx.create_ssl_context()


async def call(
    client: httpx.AsyncClient, method: str, path: str, *, retry_seconds: float = 0, **kwargs: Any
) -> Any:
    """Send a request and return the decoded JSON answer.

    Transient failures are tried again for `retry_seconds`.

    Raises:
        RewardloopError: what the server answered, or UpstreamUnavailable.
    """
    return await tried(lambda: call_once(client, method, path, **kwargs), retry_seconds)


async def tried(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `ask` gives, asked again for so long while it fails transiently.

    A call that succeeds at once, as nearly all do, needs none of what counts and times retries.

    Raises:
        RewardloopError: what `ask` raised last.
    """
    begun = time.monotonic()
    first: RewardloopError | None = None
    try:
        return await ask()
    except RewardloopError as error:
        first = error
    async for attempt in attempts(seconds - (time.monotonic() - begun)):
        with attempt:
            if attempt.retry_state.attempt_number == 1:
                raise first
            return await ask()
    raise AssertionError("unreachable: tenacity re-raises")


def attempts(seconds: float) -> AsyncRetrying:
    """Tries at one thing, for so long while it fails transiently: `async for`, `with`.

    What is overdue is not tried again here: the caller asks for it anew.
    """
    num_failed = itertools.count(1)

    def again(error: BaseException) -> bool:
        if isinstance(error, Overdue):
            return False
        if isinstance(error, UpstreamFailed | UnreadableAnswer):
            return next(num_failed) < MAX_FAILED_TRIES
        return isinstance(error, RewardloopError) and error.transient

    return AsyncRetrying(
        retry=retry_if_exception(again),
        wait=wait_exponential_jitter(multiplier=0.2, max=2),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


async def call_once(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> Any:
    return decoded(client, path, await answered(client, method, path, **kwargs))


async def answered(
    client: httpx.AsyncClient, method: str, path: str, **kwargs: Any
) -> httpx.Response:
    """A good answer, its body read.

    Raises:
        RewardloopError: as for `call`.
    """
    try:
        answer = await client.request(method, path, **kwargs)
    except httpx.TransportError as error:
        raise _unanswered(client, error) from error
    except (httpx.DecodingError, aiohttp.ClientError) as error:  # no HTTP, or not as it says
        raise UnreadableAnswer(
            f"{client.base_url} answered {path} with something else than HTTP ({error}); is this "
            "the address of the service that is wanted?"
        ) from error
    if not answer.is_success:
        raise error_of(answer)
    return answer


def decoded(client: httpx.AsyncClient, path: str, answer: httpx.Response) -> Any:
    """
    Raises:
        UnreadableAnswer: the body is no JSON.
    """
    try:
        return answer.json()
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(
            f"{client.base_url} answered {path} with something else than JSON; is this the "
            "address of the service that is wanted?"
        ) from error


_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _unanswered(client: httpx.AsyncClient, error: httpx.TransportError) -> UpstreamUnavailable:
    """Nobody listens, or somebody took the request and broke off."""
    # httpx-aiohttp calls every lost connection a ConnectTimeout, one that was open too.
    broken = isinstance(error.__cause__, aiohttp.ServerDisconnectedError) or (
        isinstance(error.__cause__, aiohttp.ClientOSError)
        and not isinstance(error.__cause__, aiohttp.ClientConnectorError)
    )
    never_sent = isinstance(error, _NEVER_SENT) and not broken
    kind: type[UpstreamUnavailable] = UpstreamUnavailable if never_sent else UpstreamFailed
    if isinstance(error, httpx.ReadTimeout):
        kind = Overdue  # as one that its own deadline broke off: asked anew, not waited for again
    name = type(error.__cause__ or error).__name__ if broken else type(error).__name__
    return kind(f"{client.base_url} does not answer ({name}: {error})")


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
    except (ValueError, RecursionError):
        body = answer.text[:200]
    if isinstance(body, dict):
        return body
    return {"detail": f"{where} answered {answer.status_code}: {body}"}
