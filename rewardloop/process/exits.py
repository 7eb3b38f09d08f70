"""How a command or a service that starts tells an error that we know: one line, exit status 1.

What a program does not know keeps its traceback.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from rewardloop.errors import RewardloopError
from rewardloop.texts import spelled_out


@contextmanager
def known_errors_told() -> Iterator[None]:
    """End the process with 1 on a RewardloopError, its kind and message on stderr; with 130
    on Ctrl-C."""
    try:
        yield
    except RewardloopError as error:
        console = Console(stderr=True)
        console.print(f"[red]error[/red] {error.kind}: ", end="")
        told = spelled_out(error.message)  # it may quote a file or a service
        console.print(told, markup=False, highlight=False, emoji=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
