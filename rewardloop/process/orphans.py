"""Child processes that do not outlive their parent, however that ends."""

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dying_with_parent(sent: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before its program (`preexec_fn`), so that the kernel sends it
    `sent` when the thread that started it ends. Linux only; elsewhere there is nothing to run.
    """
    if sys.platform != "linux":
        return None

    def ask_the_kernel() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)

    return ask_the_kernel
