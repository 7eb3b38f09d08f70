"""So many calls at once, in their order, and fewer where the room shrinks."""

import asyncio

from rewardloop.clients.slots import Slots


class Calls:
    """Numbered calls that stay inside until they are let go."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.inside: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def call(self, number: int) -> None:
        end = self.ends[number] = asyncio.Event()
        async with self._slots:
            self.inside.append(number)
            await end.wait()
            self.inside.remove(number)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_room_grows_and_shrinks() -> None:
    calls = Calls(slots := Slots(2))
    tasks = [asyncio.create_task(calls.call(number)) for number in range(8)]
    await settled()
    assert calls.inside == [0, 1]
    slots.resize(4)
    await settled()
    assert calls.inside == [0, 1, 2, 3]
    slots.resize(1)
    for number in (0, 1, 2):
        calls.ends[number].set()
    await settled()
    assert calls.inside == [3]  # nobody entered while there were too many
    calls.ends[3].set()
    await settled()
    assert calls.inside == [4]
    slots.resize(100)
    for end in calls.ends.values():
        end.set()
    await asyncio.gather(*tasks)
    assert slots.num_taken == 0


async def test_a_call_that_is_cancelled_leaves_no_hole() -> None:
    calls = Calls(slots := Slots(1))
    first, second, third = (asyncio.create_task(calls.call(number)) for number in range(3))
    await settled()
    second.cancel()
    calls.ends[0].set()
    await settled()
    assert calls.inside == [2]
    calls.ends[2].set()
    await asyncio.gather(first, third)
    late = asyncio.create_task(calls.call(3))
    later = asyncio.create_task(calls.call(4))
    await settled()
    calls.ends[3].set()
    await asyncio.sleep(0)  # its place is handed on in this round
    later.cancel()
    await asyncio.gather(late, later, return_exceptions=True)
    assert slots.num_taken == 0
