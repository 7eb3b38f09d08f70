"""Reads a whole file once: rows into groups of conversations, and the account of it.

Owns what both results, prompts and rankings, are derived from. A row that cannot
be read is left out by name and never keeps another from being read. Knows no
format from inside.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rewardloop.datasets import meaning
from rewardloop.datasets.account import Account, LeftOut
from rewardloop.datasets.files import BrokenLine, Item, read_items
from rewardloop.datasets.fitness import fitted
from rewardloop.datasets.form import Candidate, Conversation, Reference, Ungraded
from rewardloop.datasets.formats import grades, oasst
from rewardloop.datasets.formats.shape import RowFormat
from rewardloop.datasets.formats.table import Format, recognised
from rewardloop.datasets.grouping import Group, key_of
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message

_MARKED = frozenset(
    {
        Reason.PROMPT_DELETED,
        Reason.PROMPT_EMPTY,
        Reason.PROMPT_OTHER_LANGUAGE,
        Reason.PROMPT_TOO_LONG,
        Reason.TREE_NOT_READY,
        Reason.REJECTED_BY_REVIEWERS,
        Reason.FLAGGED,
        Reason.SPAM,
        Reason.NOT_ANNOTATED,
        Reason.VOTE_OVER_TURNS,
    }
)
"""Rows that are whole, and that their file marks as not to be used, or that are not wanted."""
_TOLD_APART = frozenset({Reason.CUT_SOURCE, Reason.SYNTHETIC})
"""What is counted and not left out; the account has other places for it."""


class Reading:
    """What is known of a file so far."""

    def __init__(self, format: Format, language: str | None) -> None:
        self.groups: dict[tuple[tuple[str, str], ...], Group] = {}
        self.broken: list[BrokenLine] = []
        """Lines that are no objects, and rows that cannot be understood."""
        self.num_filtered = 0
        """Rows that are understood and not wanted."""
        self.formats: Counter[str] = Counter()
        self.notes: tuple[str, ...] = ()
        self._format = format
        self._language = language
        self._messages: list[Row] = []
        self._not_graded: list[tuple[Group, int, frozenset[str]]] = []
        self._num_rows = 0
        self._duplicates = 0
        self._later_turns = 0
        self._used: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._left_out: dict[Reason, LeftOut] = {}

    def add(self, item: Item | BrokenLine) -> None:
        self._num_rows += 1
        if isinstance(item, BrokenLine):
            self._leave_out(Reason.BROKEN_LINE, item.line, item.problem)
            self.broken.append(item)
            return
        row = Row(item.raw, item.line, self._language)
        try:
            format = recognised(row, self._format)
            if format is oasst.MESSAGE:
                row.used |= oasst.MESSAGE_COLUMNS
                meaning.check_marks(oasst.without_own_marks(row))
                self._count_columns(row, meaning.unread(row))
                self._messages.append(row)
                return
            self._read(row, format)
        except ValueError as error:
            self._refuse(row.line, self._with_other_format(row, error))

    def _with_other_format(self, row: Row, error: ValueError) -> ValueError:
        """Under a named format, an unread column is most likely another format's."""
        if self._format is Format.AUTO or not _is_unread(error):
            return error
        looks = recognised(row, Format.AUTO).name
        if looks == self._format:
            return error
        detail = f"{error}; by its columns the row is of the format {looks}"
        return RowLeftOut(Reason.OTHER_FORMAT, detail)

    def finish(self) -> None:
        """Puts together what stands in several rows."""
        for row in oasst.orphans(self._messages):
            self._leave_out(Reason.NO_PROMPT, row.line, "the message that it answers is missing")
        for tree in oasst.trees(self._messages):
            try:
                self._read(tree, oasst.TREE, is_put_together=True)
            except ValueError as error:
                self._refuse(tree.line, error)
        self._messages = []
        self._take_back_grades()

    def _read(self, row: Row, format: RowFormat, *, is_put_together: bool = False) -> None:
        row.pass_over(*format.passes_over)
        meaning.check_marks(row)
        conversations = format.read(row)
        unknown = meaning.unread(row)
        found = [fitted(row, conversation) for conversation in conversations]
        self.formats[format.name] += 1
        if not is_put_together:
            self._count_columns(row, unknown)
        for why in row.left_out:
            self._leave_out(why, row.line)
        for conversation in found:
            self._take(conversation, row.line, grades.empty(row))

    def _count_columns(self, row: Row, unknown: Iterable[str]) -> None:
        self._unknown.update(unknown)
        self._used.update(row.used & row.filled)
        known = row.filled - row.used - set(unknown)
        self._passed_over.update(known)

    def _take(self, conversation: Conversation, line: int, empty_grades: frozenset[str]) -> None:
        self._later_turns += conversation.num_later_turns
        key = tuple(_plain(message) for message in conversation.messages)
        group = self.groups.get(key)
        if group is None:
            group = Group(conversation.messages, conversation.source, line)
            self.groups[key] = group
        elif set(conversation.candidates) <= group.known_answers():
            self._duplicates += 1
        if empty_grades:
            self._not_graded.append((group, len(group.conversations), empty_grades))
        group.conversations.append(conversation)

    def _take_back_grades(self) -> None:
        """An answer whose label is empty, in a file that labels others, is none to learn."""
        for group, number, columns in self._not_graded:
            if columns & self._used.keys():
                group.conversations[number] = _ungraded(group.conversations[number])
        self._not_graded = []

    def _refuse(self, line: int, error: ValueError) -> None:
        reason = error.reason if isinstance(error, RowLeftOut) else Reason.MALFORMED
        self._leave_out(reason, line, str(error))
        if reason in _MARKED:
            self.num_filtered += 1
        else:
            self.broken.append(BrokenLine(line, str(error)))

    def _leave_out(self, reason: Reason, line: int, detail: str = "") -> None:
        known = self._left_out.get(reason)
        if known is None:
            self._left_out[reason] = LeftOut(1, line, detail)
        else:
            self._left_out[reason] = LeftOut(known.count + 1, known.first_line, known.detail)

    def note(self, reasons: Iterable[Reason], line: int) -> None:
        """What followed from a group is left out, and counted at the group's first line."""
        for reason in reasons:
            self._leave_out(reason, line)

    def account(self, num_references: int, num_ranked: int) -> Account:
        cut = self._left_out.get(Reason.CUT_SOURCE)
        groups = list(self.groups.values())
        return Account(
            formats=dict(self.formats),
            num_rows=self._num_rows,
            num_prompts=len(groups),
            num_references=num_references,
            num_ranked=num_ranked,
            columns_used=_sorted(self._used),
            columns_passed_over=_sorted(self._passed_over),
            columns_unknown=_sorted(self._unknown),
            left_out={
                reason.value: self._left_out[reason]
                for reason in Reason
                if reason in self._left_out and reason not in _TOLD_APART
            },
            duplicates=self._duplicates,
            later_turns=self._later_turns,
            cut_sources=cut.count if cut else 0,
            notes=self.notes + self._notes_on_answers(),
            examples=tuple(group.conversations[0] for group in groups[:3]),
        )

    def _notes_on_answers(self) -> tuple[str, ...]:
        synthetic = self._left_out.get(Reason.SYNTHETIC)
        if synthetic is None:
            return ()
        return (f"A machine wrote {synthetic.count} of the answers that humans ranked.",)

    def main_format(self) -> Format:
        """That of the most rows; the named one where no row was read."""
        if not self.formats:
            return self._format
        return Format(self.formats.most_common(1)[0][0])


def read(path: Path, format: Format, language: str | None) -> Reading:
    """The whole file.

    Raises:
        InvalidInput: the file cannot be read.
    """
    reading = Reading(format, language)
    items = read_items(path)
    for item in items:
        reading.add(item)
    reading.finish()
    reading.notes = tuple(items.notes)
    return reading


def _ungraded(conversation: Conversation) -> Conversation:
    candidates = tuple(
        Candidate(c.text, Ungraded()) if isinstance(c.grade, Reference) else c
        for c in conversation.candidates
    )
    return replace(conversation, candidates=candidates)


def _is_unread(error: ValueError) -> bool:
    return isinstance(error, RowLeftOut) and error.reason is Reason.COLUMN_NOT_READ


def _plain(message: Message) -> tuple[str, str]:
    """Turns equal but for Unicode's forms and outer white space are one, as in a dataset."""
    return message["role"], key_of(message["content"])


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}
