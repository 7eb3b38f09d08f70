"""What a pushed prompt or ranking must hold to before it is stored. Pure.

Owns the rules for prompts that come as messages, over REST: those that files are held to,
under the same names. What does not hold is left out by name with the place of the first one;
the rest of the request is taken. Knows neither HTTP nor the store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rewardloop.records import MAX_RANKED_RESPONSES, Message, PromptRecord, RankedPrompt, RankedText
from rewardloop.texts import canonical, check_storable

MAX_TURNS = 100
MAX_CHARACTERS = 20_000
"""Of one turn or answer: some 5,000 tokens of English, more than a judge's prompt has room for."""
MAX_SOURCE_CHARACTERS = 500

CUT_SOURCE = "cut_source"
"""The one name under which nothing is left out."""


@dataclass(slots=True)
class LeftOut:
    """How often one reason left something out, and where first."""

    count: int
    first: str
    """A place in the request, such as `prompts.0.responses.1.text`."""
    detail: str
    """What was wrong there."""


class _Refused(Exception):
    """A whole prompt is left out."""

    def __init__(self, reason: str, place: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.place, self.detail = reason, place, detail


@dataclass(slots=True)
class Admission:
    """One request's prompts, taken one by one."""

    left_out: dict[str, LeftOut] = field(default_factory=dict)
    """By reason."""

    def prompt(
        self, place: str, messages: Sequence[Message], reference: str | None, source: str
    ) -> PromptRecord | None:
        """The prompt as it is stored, or None where it is left out."""
        try:
            _check_conversation(place, messages)
            _check_storable(f"{place}.source", source)
            kept = self._answer(f"{place}.reference", reference) if reference is not None else None
        except _Refused as refused:
            self._leave_out(refused.reason, refused.place, refused.detail)
            return None
        if len(source) > MAX_SOURCE_CHARACTERS:
            self._leave_out(CUT_SOURCE, f"{place}.source", f"it has {len(source)} characters")
        return PromptRecord(tuple(messages), kept, source[:MAX_SOURCE_CHARACTERS])

    def ranking(
        self, place: str, prompt: PromptRecord | None, responses: Sequence[RankedText]
    ) -> RankedPrompt | None:
        """The ranking as it is stored, best first, or None where nothing of it has an order."""
        if prompt is None:
            return None
        numbered = enumerate(responses)
        good = [(n, r) for n, r in numbered if self._answer(f"{place}.responses.{n}.text", r.text)]
        kept = self._distinct(place, sorted(good, key=lambda item: item[1].rank))
        if len(kept) < 2:
            self._leave_out("fewer_than_two", place, f"{len(kept)} responses are left of it")
        elif kept[0].rank == kept[-1].rank:
            self._leave_out("no_order", place, "all of its responses have one rank")
        elif len(kept) > MAX_RANKED_RESPONSES:
            self._leave_out("too_many_responses", place, f"it has {len(kept)} responses")
        else:
            return RankedPrompt(prompt, kept)
        return None

    def _answer(self, place: str, text: str) -> str | None:
        """An answer that can be learnt or judged, or None."""
        try:
            _check_storable(place, text)
        except _Refused as refused:
            self._leave_out(refused.reason, refused.place, refused.detail)
            return None
        if not text.strip():
            self._leave_out("empty", place, "it is blank")
        elif len(text) > MAX_CHARACTERS:
            self._leave_out("too_long", place, f"it has {len(text)} characters")
        else:
            return text
        return None

    def _distinct(
        self, place: str, best_first: Iterable[tuple[int, RankedText]]
    ) -> tuple[RankedText, ...]:
        """The best-ranked of each text."""
        first: dict[str, RankedText] = {}
        for number, response in best_first:
            if canonical(response.text) in first:
                where = f"{place}.responses.{number}.text"
                self._leave_out("repeated_text", where, "a better-ranked one says the same")
            first.setdefault(canonical(response.text), response)
        return tuple(first.values())

    def _leave_out(self, reason: str, place: str, detail: str) -> None:
        found = self.left_out.setdefault(reason, LeftOut(0, place, detail))
        found.count += 1

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out.keys() - {CUT_SOURCE}

    def told(self) -> str:
        """As in "2 empty (first prompts.0.responses.1.text: it is blank)"."""
        return ", ".join(
            f"{found.count} {reason} (first {found.first}: {found.detail})"
            for reason, found in self.left_out.items()
        )


def _check_conversation(place: str, messages: Sequence[Message]) -> None:
    """
    Raises:
        _Refused: no model's template takes the turns as they are.
    """
    if len(messages) > MAX_TURNS:
        raise _Refused("too_many_turns", f"{place}.messages", f"it has {len(messages)} turns")
    for number, message in enumerate(messages):
        _check_turn(f"{place}.messages.{number}.content", message, number == len(messages) - 1)
    turns = messages[1:] if messages[:1] and messages[0]["role"] == "system" else messages
    expected = ["user", "assistant"] * len(turns)
    for number, message in enumerate(turns, start=len(messages) - len(turns)):
        if message["role"] != expected.pop(0):
            where = f"{place}.messages.{number}"
            raise _Refused("turns_out_of_order", where, f"{_ORDER}; this turn is {message['role']}")
    if len(turns) % 2 == 0:
        end = f"the prompt ends in the turn of role {messages[-1]['role']}" if messages else "empty"
        raise _Refused("turns_out_of_order", f"{place}.messages", f"{_ORDER}; {end}")


_ORDER = "a prompt is a system turn or none, then user and assistant in turn, the user last"


def _check_turn(place: str, message: Message, is_last: bool) -> None:
    content = message["content"]
    _check_storable(place, content)
    if not content.strip():
        raise _Refused("prompt_empty" if is_last else "empty_turn", place, "it is blank")
    if len(content) > MAX_CHARACTERS:
        raise _Refused("prompt_too_long", place, f"it has {len(content)} characters")


def _check_storable(place: str, text: str) -> None:
    try:
        check_storable(text)
    except ValueError as error:
        raise _Refused("unstorable", place, str(error)) from None
