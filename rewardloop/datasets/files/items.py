"""What a file is read into: numbered objects, broken lines, and notes.

Owns the three and the words for what a number counts. Knows no file kind and no
format.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rewardloop.datasets.fields import Raw


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line, row or element that cannot be read."""

    line: int
    """Counted from 1, as `Items.unit` says."""
    problem: str


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a file."""

    line: int
    raw: Raw


class Items(Iterator[Item | BrokenLine]):
    """A file's objects in order, and what had to be said about reading them.

    `notes` is complete once the iterator has ended. A note tells of something
    that was read otherwise than the file's name or form promised; it is no error.
    """

    def __init__(self, unit: str, found: Iterator[Item | BrokenLine], notes: list[str]) -> None:
        self.unit = unit
        """What the numbers count: line, element or row."""
        self.notes = notes
        self._found = found

    def __next__(self) -> Item | BrokenLine:
        return next(self._found)
