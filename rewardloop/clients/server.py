"""One server that is asked for text: its connections, its latency, its breaker.

The number of calls in flight follows what the engine reports (`allowance`); the others wait
here, and their time begins when they are sent.

A call past its deadline is broken off as Overdue. One that is late by the finished calls alone
lets the server be asked for a single token: a server that does not even give that is no longer
trusted, whatever its `/health` says, and what is late there is overdue at once.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from rewardloop import telemetry
from rewardloop.clients.allowance import Allowance, Load
from rewardloop.clients.breaker import Breaker
from rewardloop.clients.http import answered, call_once, connect, decoded, tried
from rewardloop.clients.latency import Latency
from rewardloop.clients.quick import encoded
from rewardloop.clients.slots import Slots
from rewardloop.clients.turns import Turns
from rewardloop.errors import Overdue, RewardloopError, UpstreamFailed, UpstreamUnavailable

logger = logging.getLogger("rewardloop.clients")

REQUEST_SECONDS = 240.0
"""No call takes longer."""
PROBE_SECONDS = 10.0
PROBE_AGAIN_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""How often a call in flight looks whether it is late."""

KEY_HEADER = "x-request-key"
ANEW_HEADER = "x-request-anew"
"""Any value but an empty one: do not wait for an answer that is already being made."""
AGAIN_HEADER = "x-rewardloop-given-again"
"""Our gate and our judge set it where an answer cost no call: it says nothing of their speed."""

Probe = Callable[[httpx.AsyncClient], Awaitable[object]]
T = TypeVar("T")


def request_key(*parts: object) -> str:
    """The key under which an answer is kept: by what it is for, so that whoever asks for the
    same samples again names the same key."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _key_of(key: str, path: str, content: bytes) -> str:
    return hashlib.sha256(b"\0".join((key.encode(), path.encode(), content))).hexdigest()[:32]


async def asked_again(ask: Callable[[bool], Awaitable[T]], retry_seconds: float) -> T:
    """Ask for `retry_seconds` while it fails transiently; once more, `anew`, where it is overdue.

    Raises:
        RewardloopError: what `ask` raised last.
    """

    try:
        return await tried(lambda: ask(False), retry_seconds)
    except Overdue as error:
        logger.warning("%s; asking again", error.message)
        return await tried(lambda: ask(True), retry_seconds)


@dataclass(eq=False)
class _Call:
    begun: float = field(default_factory=time.monotonic)
    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    """Runs out when the server's watch breaks the call off."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def break_off(self) -> None:
        if not self.limit.expired():
            self.limit.reschedule(0)  # a time long past, by the event loop's clock


class Server:
    def __init__(
        self,
        url: str,
        key: str,
        *,
        probe: Probe | None = None,
        ceiling_seconds: float = REQUEST_SECONDS,
        turns: Turns | None = None,
    ) -> None:
        """`probe` asks for one token. Without it the breaker holds nothing back. Servers that
        share `turns` send their calls and read their answers in turn."""
        self.url = url
        self._client = connect(url, key, timeout_seconds=ceiling_seconds)
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._probed_at = 0.0
        self._latency = Latency(ceiling_seconds)
        self._in_flight: set[_Call] = set()
        self._num_asked = 0
        """With those that wait for a slot."""
        self._allowance = Allowance()
        self._slots = Slots(self._allowance.num_calls)
        self._turns = turns or Turns()
        self.load: Load | None = None
        """What its engine reported last, if it reports."""
        self.breaker = Breaker()
        self._trial = asyncio.Lock()
        self._why = UpstreamUnavailable(f"{url} has failed several times in a row")

    async def aclose(self) -> None:
        for task in (self._watching, self._probing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._client.aclose()

    @property
    def reluctance(self) -> tuple[float, int]:
        """The server with the least is asked first: it does not rest, and has little to do."""
        return self.breaker.rest(time.monotonic()), self._num_asked

    @property
    def num_allowed(self) -> int:
        """Calls that may be in flight at once."""
        return self._allowance.num_calls

    def hear(self, load: Load) -> None:
        """The engine has reported."""
        self.load = load
        if self._allowance.reported(load, self._slots.num_taken):
            self._make_room()

    def _make_room(self) -> None:
        telemetry.CALLS_ALLOWED.labels(self.url).set(self.num_allowed)
        self._slots.resize(self.num_allowed)

    async def get(self, path: str) -> Any:
        """
        Raises:
            RewardloopError: as for `call_once`.
        """
        return await call_once(self._client, "GET", path)

    async def post(
        self, path: str, body: dict[str, Any], *, key: str | None = None, anew: bool = False
    ) -> Any:
        """
        Raises:
            Overdue: no answer within the deadline.
            RewardloopError: as for `call_once`; UpstreamUnavailable while the breaker is open.
        """
        self._num_asked += 1
        try:
            async with self._slots:
                await self._turns.next()
                return await self._post(path, encoded(body), key, anew)
        finally:
            self._num_asked -= 1

    async def _post(self, path: str, content: bytes, key: str | None, anew: bool) -> Any:
        await self._require_trusted()
        # With the body in it, a key never stands for two questions.
        headers = {KEY_HEADER: _key_of(key, path, content)} if key else {}
        if key and anew:
            headers[ANEW_HEADER] = "1"
        call = _Call()
        asked = answered(self._client, "POST", path, content=content, headers=headers)
        try:
            answer = await self._in_time(call, asked)
            seconds = call.seconds
            await self._turns.next()
            found = decoded(self._client, path, answer)
        except UpstreamUnavailable:
            self._count_opening(self.breaker.failed)
            raise
        except RewardloopError:
            self.breaker.succeeded()  # a refusal is an answer too
            raise
        self.breaker.succeeded()
        if self._allowance.answered():
            self._make_room()
        if AGAIN_HEADER not in answer.headers:
            self._latency.note(seconds)
        return found

    async def _in_time(self, call: _Call, answer: Awaitable[T]) -> T:
        """
        Raises:
            Overdue: the call was broken off.
        """
        self._in_flight.add(call)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            async with call.limit:
                return await answer
        except TimeoutError:
            assert call.limit.expired(), "no other time runs out inside a call"
            telemetry.OVERDUE_CALLS.labels(str(self._client.base_url)).inc()
            raise Overdue(
                f"{self._client.base_url} gave no answer within {call.seconds:.0f} s, far longer "
                "than its others take"
            ) from None
        finally:
            self._in_flight.discard(call)

    async def _watch(self) -> None:
        """One look after all calls, however many are in flight."""
        while self._in_flight:
            await asyncio.sleep(LOOK_SECONDS)
            self._look_after_calls()

    def _look_after_calls(self) -> None:
        """Break off the calls that have had their time; where one is late, see whether the server
        gives anything to anybody."""
        calls = sorted(self._in_flight, key=lambda call: call.begun, reverse=True)
        ages = [call.seconds for call in calls]
        for call, is_overdue in zip(calls, self._latency.overdue(ages), strict=True):
            if is_overdue:
                call.break_off()
        is_due = time.monotonic() - self._probed_at > PROBE_AGAIN_SECONDS
        if self._probe is not None and is_due and ages and ages[-1] > self._latency.silence():
            self._probed_at = time.monotonic()
            self._probing = asyncio.create_task(self._look_whether_it_is_there())

    async def _look_whether_it_is_there(self) -> None:
        try:
            await self._ask_for_a_token()
        except UpstreamUnavailable as error:
            logger.warning("%s", error.message)
            silence = self._latency.silence()
            for call in self._in_flight:
                if call.seconds > silence:
                    call.break_off()

    async def _require_trusted(self) -> None:
        """
        Raises:
            UpstreamUnavailable: the breaker is open, and no trial is due or it failed.
        """
        if self._probe is None or not self.breaker.is_open:
            return
        async with self._trial:
            if not self.breaker.is_open:
                return
            if not self.breaker.trial_is_due(time.monotonic()):
                raise type(self._why)(self._why.message)
            await self._ask_for_a_token()

    async def _ask_for_a_token(self) -> None:
        """
        Raises:
            UpstreamUnavailable: it gave none.
        """
        assert self._probe is not None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe(self._client)
        except (TimeoutError, UpstreamUnavailable) as error:
            self._count_opening(self.breaker.trial_failed)
            self._why = self._as_told(error)
            raise self._why from error
        except RewardloopError:
            pass  # what is wrong with it, the calls will tell
        self.breaker.succeeded()

    def _as_told(self, error: TimeoutError | UpstreamUnavailable) -> UpstreamUnavailable:
        if isinstance(error, TimeoutError):
            return UpstreamFailed(f"{self._client.base_url} does not give a single token in time")
        return type(error)(f"{error.message}; asked for a single token")

    def _count_opening(self, happened: Callable[[float], None]) -> None:
        was_open = self.breaker.is_open
        happened(time.monotonic())
        if self.breaker.is_open and not was_open:
            telemetry.BREAKERS_OPENED.labels(str(self._client.base_url)).inc()
