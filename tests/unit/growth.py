"""How the time of a call grows with its input, on a machine of any speed."""

import time
from collections.abc import Callable


def is_linear(call: Callable[[int], object], size: int) -> bool:
    """Whether four times the size takes less than ten times as long (a square takes 16).

    Processor time, the best of three each: a bound in seconds would speak of the machine.
    Once is enough for the longer call where it is quick at once.
    """
    most = 10 * max(0.001, min(_seconds(call, size) for _ in range(3)))
    return any(_seconds(call, 4 * size) < most for _ in range(3))


def _seconds(call: Callable[[int], object], size: int) -> float:
    started = time.process_time()
    call(size)
    return time.process_time() - started
