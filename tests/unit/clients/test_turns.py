"""Work that could all begin at once begins a few pieces in a round of the event loop."""

import asyncio

from rewardloop.clients.turns import NUM_IN_A_ROUND, Turns


async def rounds_of(num: int, turns: Turns) -> list[int]:
    """The round of the event loop in which each of so many pieces of work began."""
    began: list[int] = []
    number = 0

    async def work() -> None:
        await turns.next()
        began.append(number)

    tasks = [asyncio.create_task(work()) for _ in range(num)]
    while len(began) < num:
        await asyncio.sleep(0)
        number += 1
    await asyncio.gather(*tasks)
    return began


async def test_a_few_begin_in_each_round_in_their_order() -> None:
    began = await rounds_of(10 * NUM_IN_A_ROUND, Turns())
    assert began == sorted(began)
    assert max(began.count(number) for number in began) == NUM_IN_A_ROUND


async def test_whoever_gave_up_takes_nobodys_turn() -> None:
    turns = Turns()
    gone = [asyncio.create_task(turns.next()) for _ in range(3 * NUM_IN_A_ROUND)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    async with asyncio.timeout(60):
        assert len(await rounds_of(2, turns)) == 2
    assert all(task.cancelled() or task.done() for task in gone)
