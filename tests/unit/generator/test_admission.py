"""Counting requests, and holding them back."""

import asyncio

import pytest

from rewardloop.errors import UpstreamUnavailable
from services.generator import admission
from services.generator.admission import Admission


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


async def test_a_drain_that_takes_too_long_opens_again() -> None:
    door = Admission()
    async with door.request():
        with pytest.raises(UpstreamUnavailable, match="1 requests were still running after 0 s"):
            async with door.closed(0.01):
                raise AssertionError("must not be entered")
        async with door.request():
            assert door.in_flight == 2


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
