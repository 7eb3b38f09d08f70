"""Reads a file of human-ranked responses into `RankedPrompt`s.

As with prompt files, every line is good or nothing is handed over, unless the
caller has broken lines left out. A prompt is handed over with two responses or
more, not all of one rank; whatever else a good line holds is counted under why
it was left out. Knows no format from inside: each has a file with a pure
`sifted`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rewardloop.datasets import fields, oasst, ranked_seed
from rewardloop.datasets.broken_lines import check_lines, counted
from rewardloop.datasets.conversation import numbered
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.files import BrokenLine, Item, read_items, unit_of
from rewardloop.datasets.sifting import LeftOut, Sifted
from rewardloop.errors import InvalidInput
from rewardloop.records import MAX_RANKED_RESPONSES, RankedPrompt, RankedText
from rewardloop.texts import check_storable

_Sifter = Callable[[Raw], Sifted]


@dataclass(frozen=True, slots=True)
class RankedResult:
    """What a file held."""

    prompts: tuple[RankedPrompt, ...]
    """In the file's order; a prompt that stands there twice is here twice."""
    skipped: tuple[BrokenLine, ...]
    """Broken lines that were left out; empty unless `skip_broken`."""
    left_out: dict[str, int]
    """How many prompts or replies were left out, by `LeftOut`; what did not occur is not named."""


def read_ranked(
    path: Path, *, skip_broken: bool = False, language: str | None = "en"
) -> RankedResult:
    """All prompts with ranked responses of a `.jsonl`, `.jsonl.gz` or `.json` file.

    `language` is looked at where the format tells one (Open Assistant); None takes all.

    Raises:
        BrokenFile: lines are broken and `skip_broken` is false, or no line is good.
        InvalidInput: the file cannot be read, is empty, is of neither ranked format, or
            nothing of it is left.
    """
    reading = _Reading(path, language)
    for item in read_items(path):
        reading.add(item)
    return reading.result(skip_broken)


class _Reading:
    """What is known of a file so far; the format is recognised at its first object."""

    def __init__(self, path: Path, language: str | None) -> None:
        self._path = path
        self._language = language
        self._sifter: _Sifter | None = None
        self._prompts: list[RankedPrompt] = []
        self._broken: list[BrokenLine] = []
        self._left_out: Counter[LeftOut] = Counter()
        self._num_good = 0

    def add(self, item: Item | BrokenLine) -> None:
        if isinstance(item, BrokenLine):
            self._broken.append(item)
            return
        if self._sifter is None:
            self._sifter = _recognised(self._path, item, self._language)
        try:
            found = _storable(self._sifter(item.raw))
        except ValueError as error:
            self._broken.append(BrokenLine(item.line, str(error)))
            return
        self._num_good += 1
        self._take(found, item.line)

    def _take(self, found: Sifted, line: int) -> None:
        self._left_out.update(found.left_out)
        if found.prompt is None:
            return
        if why := _without_order(found.replies):
            self._left_out[why] += 1
            return
        if len({reply.rank for reply in found.replies}) < len(found.replies):
            self._left_out[LeftOut.EQUAL_RANKS] += 1
        self._prompts.append(RankedPrompt(numbered(found.prompt, line), found.replies))

    def result(self, skip_broken: bool) -> RankedResult:
        check_lines(self._path, self._broken, num_good=self._num_good, skip_broken=skip_broken)
        if not self._prompts:
            raise self._nothing_left()
        return RankedResult(
            prompts=tuple(self._prompts),
            skipped=tuple(self._broken),
            left_out={why.value: self._left_out[why] for why in LeftOut if self._left_out[why]},
        )

    def _nothing_left(self) -> InvalidInput:
        reasons = [f"{self._left_out[why]} {why}" for why in LeftOut if self._left_out[why]]
        if self._broken:
            reasons.append(counted(self._path, self._broken))
        return InvalidInput(
            f"{self._path}: no prompt with ranked responses is left. Left out were: "
            f"{', '.join(reasons)}. A prompt needs two responses of different ranks, and both "
            "in the wanted language where the file tells one."
        )


def _recognised(path: Path, item: Item, language: str | None) -> _Sifter:
    is_tree = {"prompt", "message_tree_id"} <= item.raw.keys()
    is_ranked_seed = {"prompt", "responses"} <= item.raw.keys()
    if is_tree and not is_ranked_seed:
        return partial(oasst.sifted, language=language)
    if is_ranked_seed and not is_tree:
        return ranked_seed.sifted
    which = "may be of either" if is_tree else "is of neither"
    raise InvalidInput(
        f"{path}: {unit_of(path)} {item.line} {which} ranked format, by its keys "
        f"({fields.keys_of(item.raw)}). Give Open Assistant's trees "
        '({"message_tree_id", "prompt": {"text", "role", "lang", "replies"}}), '
        'or {"prompt", "responses": [{"rank", "text"}]}.'
    )


def _storable(found: Sifted) -> Sifted:
    if len(found.replies) > MAX_RANKED_RESPONSES:
        raise ValueError(
            f"{len(found.replies)} responses to one prompt; leave at most {MAX_RANKED_RESPONSES}"
        )
    for reply in found.replies:
        check_storable(reply.text)
    return found


def _without_order(replies: Sequence[RankedText]) -> LeftOut | None:
    if len(replies) < 2:
        return LeftOut.FEWER_THAN_TWO
    return LeftOut.NO_ORDER if replies[0].rank == replies[-1].rank else None
