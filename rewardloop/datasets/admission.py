"""Prompts and rankings that are pushed as messages, held to the rules of files. Pure.

What does not hold is left out by name, with the place of the first one in the request; the
rest is taken. Knows neither HTTP nor the store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rewardloop.datasets.fitness import fitted
from rewardloop.datasets.form import Candidate, Conversation, Ranked, Reference
from rewardloop.datasets.grouping import Group, judged, key_of
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message, PromptRecord, RankedPrompt, RankedText

NOTHING_LEFT_OUT = frozenset({Reason.CUT_SOURCE, Reason.EQUAL_RANKS})
"""What is told and counted under a reason, and stored all the same."""


@dataclass(slots=True)
class LeftOut:
    """How often one reason left something out, and where first."""

    count: int
    first: str
    """A place in the request, such as `prompts.3`."""
    detail: str
    """What was wrong there; empty where the reason says it all."""


@dataclass(slots=True)
class Admission:
    """One request's prompts, taken one by one."""

    left_out: dict[Reason, LeftOut] = field(default_factory=dict)

    def prompt(
        self, number: int, messages: Sequence[Message], reference: str | None, source: str
    ) -> PromptRecord | None:
        """The prompt as it is stored, or None where it is left out."""
        found = self._fitted(number, messages, _references(reference), source)
        return None if found is None else _record(found)

    def ranking(
        self,
        number: int,
        messages: Sequence[Message],
        reference: str | None,
        source: str,
        responses: Sequence[RankedText],
    ) -> RankedPrompt | None:
        """The ranking as it is stored, best first, or None where nothing of it has an order."""
        ranked = [Candidate(response.text, Ranked(response.rank)) for response in responses]
        candidates = [*_references(reference), *ranked]
        found = self._fitted(number, messages, candidates, source)
        if found is None:
            return None
        graded = tuple(c for c in found.candidates if not isinstance(c.grade, Reference))
        alone = replace(found, candidates=graded)
        result = judged(Group(found.messages, found.source, number, [alone]))
        self._leave_out(number, result.not_ranked)
        bad = {key_of(response.text) for response in responses if not response.imitate}
        ranking = tuple(replace(r, imitate=key_of(r.text) not in bad) for r in result.ranking)
        return RankedPrompt(_record(found), ranking) if ranking else None

    def _fitted(
        self, number: int, messages: Sequence[Message], candidates: Sequence[Candidate], source: str
    ) -> Conversation | None:
        row = Row({}, number)
        try:
            found = fitted(row, Conversation(tuple(messages), tuple(candidates), source))
        except RowLeftOut as error:
            self._leave_out(number, [error.reason], str(error))
            return None
        self._leave_out(number, row.left_out)
        return found

    def _leave_out(self, number: int, reasons: Iterable[Reason], detail: str = "") -> None:
        for reason in reasons:
            known = self.left_out.setdefault(reason, LeftOut(0, f"prompts.{number}", detail))
            known.count += 1

    @property
    def is_whole(self) -> bool:
        """Whether everything is stored."""
        return not self.left_out.keys() - NOTHING_LEFT_OUT

    def told(self) -> str:
        """As in "2 empty (first prompts.0)"."""
        return ", ".join(
            f"{found.count} {reason} (first {found.first}"
            f"{': ' if found.detail else ''}{found.detail})"
            for reason, found in self.left_out.items()
        )


def _references(reference: str | None) -> list[Candidate]:
    return [] if reference is None else [Candidate(reference, Reference())]


def _record(found: Conversation) -> PromptRecord:
    references = [c.text for c in found.candidates if isinstance(c.grade, Reference)]
    return PromptRecord(found.messages, references[0] if references else None, found.source)
