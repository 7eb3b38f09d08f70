"""A training's child, started again where it was ended from outside.

A child that a signal ended goes on from its newest state. Ended again before it saved another
one, it is given up: what ends it (too little memory, say) will end it at every try.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from rewardloop.errors import TrainingKilled

logger = logging.getLogger("rewardloop.trainer")

Reports = AsyncGenerator[dict[str, Any], None]


async def with_restart(start: Callable[[], Reports]) -> Reports:
    """The reports of the child that `start` starts, and of those that follow it.

    Raises:
        TrainingKilled: a child was ended, and the next one before it saved a state.
        RewardloopError: what else ended it.
    """
    num_restarts = 0
    killed_at: int | None = None
    saved_step = 0
    while True:
        try:
            async with aclosing(start()) as reports:
                async for said in reports:
                    saved_step = max(saved_step, said.get("saved_step", 0))
                    yield said
        except TrainingKilled as error:
            if killed_at is not None and saved_step <= killed_at:
                raise _killed_again(error, saved_step) from error
            killed_at = saved_step
            num_restarts += 1
            logger.warning("%s; it is started again", error.message)
            yield {"num_restarts_of_child": num_restarts, "restarted_because": error.message}
        else:
            return


def _killed_again(error: TrainingKilled, saved_step: int) -> TrainingKilled:
    return TrainingKilled(
        f"{error.message}. It was started again and ended the same way before it could save "
        f"another state; what is saved is the state of step {saved_step}, and a retry goes on "
        "from there",
        **error.context,
    )
