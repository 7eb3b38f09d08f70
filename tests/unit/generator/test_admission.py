"""Counting requests, and holding them back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from starlette.types import Message

from rewardloop.errors import UpstreamUnavailable
from services.generator import admission
from services.generator.admission import Admission
from services.generator.ending import Ending


async def test_requests_are_counted_in_and_out() -> None:
    door = Admission()
    async with door.request(), door.request():
        assert door.in_flight == 2
    assert door.in_flight == 0


async def test_a_request_that_fails_leaves_too() -> None:
    door = Admission()
    with pytest.raises(ZeroDivisionError):
        async with door.request():
            raise ZeroDivisionError
    assert door.in_flight == 0
    async with door.closed(0.1):
        pass


async def test_closing_waits_for_the_last_request() -> None:
    door = Admission()
    order: list[str] = []

    async def close() -> None:
        async with door.closed(5):
            order.append("closed")

    first, second = door.request(), door.request()
    await first.__aenter__()
    await second.__aenter__()
    closing = asyncio.create_task(close())
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    await asyncio.sleep(0.01)
    order.append("one left")
    await second.__aexit__(None, None, None)
    await closing
    assert order == ["one left", "closed"]


async def test_new_requests_wait_while_it_is_closed() -> None:
    door = Admission()
    order: list[str] = []

    async def enter() -> None:
        async with door.request():
            order.append("entered")

    async with door.closed(5):
        waiting = asyncio.create_task(enter())
        await asyncio.sleep(0.01)
        order.append("still closed")
        assert door.in_flight == 0
    await waiting
    assert order == ["still closed", "entered"]


async def test_a_request_that_holds_a_swap_up_is_ended_with_an_error_that_may_pass(
    monkeypatch: pytest.MonkeyPatch, metric: Callable[..., float]
) -> None:
    monkeypatch.setattr(admission, "END_SECONDS", 0.02)
    door = Admission()
    before = metric("rewardloop_requests_ended_total")

    async def enter() -> None:
        async with door.request():
            await asyncio.Event().wait()

    running = [asyncio.create_task(enter()) for _ in range(2)]
    await asyncio.sleep(0)
    async with door.closed(0.01) as num_ended:
        assert (num_ended, door.in_flight) == (2, 0)
    for request in running:
        with pytest.raises(UpstreamUnavailable, match="it was ended, so that new weights"):
            await request
    assert metric("rewardloop_requests_ended_total") == before + 2


async def test_a_server_that_sees_its_client_go_stops_by_itself() -> None:
    """As vLLM does: cancelling its handler would leave the work in the engine."""
    door, ending = Admission(), Ending()
    seen: list[str] = []
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with door.request(ending):
            message = await ending.receiving(lambda: never)()
            seen.append(message["type"])
            await ending.sending(unreachable)({"type": "http.response.start", "status": 200})

    async def unreachable(message: Message) -> None:
        raise AssertionError("the client must not see what is said to one that has gone")

    running = asyncio.create_task(serve())
    await asyncio.sleep(0)
    async with door.closed(0.01) as num_ended:
        assert num_ended == 1
    with pytest.raises(UpstreamUnavailable):
        await running
    assert seen == ["http.disconnect"]


async def test_an_answer_that_was_sent_whole_is_not_called_cut() -> None:
    door, ending = Admission(), Ending()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        async with door.request(ending):
            await ending.sending(send)({"type": "http.response.body", "body": b"x"})
            await ending.receiving(asyncio.Event().wait)()  # type: ignore[arg-type]

    running = asyncio.create_task(serve())
    await asyncio.sleep(0)
    async with door.closed(0.01):
        pass
    await running
    assert len(sent) == 1


async def test_a_request_that_cannot_be_ended_stops_the_swap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "END_SECONDS", 0.01)
    door, let_go = Admission(), asyncio.Event()

    async def deaf() -> None:
        with suppress(UpstreamUnavailable):
            async with door.request():
                while not let_go.is_set():
                    with suppress(asyncio.CancelledError):
                        await let_go.wait()

    running = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    with pytest.raises(UpstreamUnavailable, match="1 requests were still running 0 s after"):
        async with door.closed(0.01):
            raise AssertionError("must not be entered")
    async with door.request():
        assert door.in_flight == 2
    let_go.set()
    await running


async def test_a_request_is_held_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "HOLD_SECONDS", 0.01)
    door = Admission()
    async with door.closed(1):
        with pytest.raises(UpstreamUnavailable, match="try again"):
            async with door.request():
                raise AssertionError("must not be entered")
    assert door.in_flight == 0


async def test_it_opens_after_a_block_that_failed() -> None:
    door = Admission()
    with pytest.raises(ZeroDivisionError):
        async with door.closed(1):
            raise ZeroDivisionError
    async with door.request():
        pass


async def test_a_timeout_within_the_block_is_not_called_a_drain() -> None:
    door = Admission()
    with pytest.raises(TimeoutError, match="reload"):
        async with door.closed(1):
            raise TimeoutError("reload")
