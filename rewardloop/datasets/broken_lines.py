"""What a reader says of a file's broken lines.

Owns the refusal and its words: broken lines are left out, unless the caller
wants the whole file or nothing; a file without a good line is refused in any
case. Knows no format.
"""

from collections.abc import Sequence
from pathlib import Path

from rewardloop.datasets.files import BrokenLine, unit_of
from rewardloop.errors import BrokenFile, InvalidInput

_NUM_TOLD = 5
"""How many broken lines a message spells out."""


def check_lines(
    path: Path,
    broken: Sequence[BrokenLine],
    *,
    num_good: int,
    skip_broken: bool,
    tried: str = "",
    otherwise: str = "",
) -> None:
    """Refuses a file that is empty, has no good line, or has broken ones not to be skipped.

    `tried` and `otherwise` are put in where no line is good: as what the file was read, and
    what else than mending may help.

    Raises:
        BrokenFile: lines are broken and `skip_broken` is false, or no line is good.
        InvalidInput: the file is empty.
    """
    if not num_good and not broken:
        raise InvalidInput(f"{path} is empty. Give a file with at least one prompt.")
    if not num_good:
        raise _none_good(path, broken, tried, otherwise)
    if broken and not skip_broken:
        raise _some_broken(path, broken)


def _some_broken(path: Path, broken: Sequence[BrokenLine]) -> BrokenFile:
    return BrokenFile(
        f"{path} has {counted(path, broken)}; nothing was imported.\n{_told(path, broken)}\n"
        "Mend them, or import without --strict to leave them out.",
        lines=[item.line for item in broken],
    )


def _none_good(path: Path, broken: Sequence[BrokenLine], tried: str, otherwise: str) -> BrokenFile:
    return BrokenFile(
        f"{path} has {counted(path, broken)} and no good one{tried}; nothing was imported.\n"
        f"{_told(path, broken)}\n"
        f"Mend them{otherwise}.",
        lines=[item.line for item in broken],
    )


def counted(path: Path, broken: Sequence[BrokenLine]) -> str:
    """As in "2 broken lines"."""
    return f"{len(broken)} broken {unit_of(path)}{'' if len(broken) == 1 else 's'}"


def _told(path: Path, broken: Sequence[BrokenLine]) -> str:
    told = [f"  {unit_of(path)} {item.line}: {item.problem}" for item in broken[:_NUM_TOLD]]
    if len(broken) > _NUM_TOLD:
        told.append(f"  and {len(broken) - _NUM_TOLD} more")
    return "\n".join(told)
