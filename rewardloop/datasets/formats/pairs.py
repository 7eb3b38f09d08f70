"""Two answers in columns of their own, and a verdict: HelpSteer2 and 3, PKU-SafeRLHF, SHP,
WebGPT, Chatbot Arena.

A verdict becomes two ranks, a tie equal ones. A verdict that is not understood
leaves the row out.
"""

from collections.abc import Sequence
from typing import Literal

from rewardloop.datasets import fields, labels, marks, turns
from rewardloop.datasets.form import (
    Candidate,
    Conversation,
    Disliked,
    Grade,
    Ranked,
    Rated,
    Scale,
    Ungraded,
)
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.shape import RowFormat, conversation, has
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row
from rewardloop.records import Message

Verdict = Literal["first", "second", "tie", "both_bad"]
_RANKS: dict[Verdict, tuple[Grade, Grade]] = {
    "first": (Ranked(0), Ranked(1)),
    "second": (Ranked(1), Ranked(0)),
    "tie": (Ranked(0), Ranked(0)),
    "both_bad": (Disliked(), Disliked()),
}
_WEBGPT = Scale("webgpt_score", -1, 1)
_SHP_OTHERS = (
    "upvote_ratio", "c_root_id_A", "c_root_id_B", "created_at_utc_A", "created_at_utc_B",
    "score_A", "score_B", "seconds_difference", "score_ratio",
)  # fmt: skip
"""Votes and times from which the label was made."""
_OUTCOMES: dict[str, Verdict] = {
    "winner_model_a": "first",
    "winner_model_b": "second",
    "winner_tie": "tie",
}
_WINNERS: dict[str, Verdict] = {
    "model_a": "first",
    "model_b": "second",
    "a": "first",
    "b": "second",
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "tie_bothbad": "both_bad",
    "bothbad": "both_bad",
    "both_bad": "both_bad",
}


def judged(
    row: Row, texts: tuple[str, str], verdict: Verdict, after_marks: bool = False
) -> list[Candidate]:
    """The two answers with the ranks that the verdict gives them."""
    first, second = (marks.answer(text, after_marks) for text in texts)
    grades = _RANKS[verdict]
    if first.strip() == second.strip():
        row.leave_out(Reason.EQUAL_SIDES)
        grades = (Ungraded(), Ungraded())
    return [Candidate(first, grades[0]), Candidate(second, grades[1])]


def by_sign(value: object, column: str, low: float, high: float) -> Verdict:
    """A strength of preference: below 0 for the first answer, above 0 for the second.

    Raises:
        RowLeftOut: it is no number from `low` to `high`.
    """
    strength = labels.number(value, column)
    if not low <= strength <= high:
        raise labels.not_understood(column, value)
    return "first" if strength < 0 else "second" if strength > 0 else "tie"


def by_index(value: object, column: str) -> Verdict:
    """0 for the first answer, 1 for the second."""
    return "second" if _zero_or_one(value, column) else "first"


def _zero_or_one(value: object, column: str) -> bool:
    found = float(value) if isinstance(value, bool) else labels.number(value, column)
    if found not in (0.0, 1.0):
        raise labels.not_understood(column, value)
    return bool(found)


def _helpsteer2(row: Row) -> list[Conversation]:
    found = asked.prompt(row, "prompt")
    verdict = by_sign(row["preference_strength"], "preference_strength", -3, 3)
    texts = (fields.text(row, "response_1"), fields.text(row, "response_2"))
    candidates = judged(row, texts, verdict, found.was_rendered)
    return conversation(row, "helpsteer2", found.messages, candidates)


def _alpaca_farm(row: Row) -> list[Conversation]:
    found = asked.instruction(row, "instruction")
    preference = labels.number(row["preference"], "preference")
    if preference not in (1, 2):
        raise labels.not_understood("preference", row["preference"])
    texts = (fields.text(row, "output_1"), fields.text(row, "output_2"))
    verdict: Verdict = "first" if preference == 1 else "second"
    return conversation(row, "alpaca_farm", found.messages, judged(row, texts, verdict))


def _helpsteer3(row: Row) -> list[Conversation]:
    found = asked.prompt(row, "context")
    if "overall_preference" not in row.filled:
        raise RowLeftOut(Reason.NOT_ANNOTATED, '"overall_preference" is missing')
    verdict = by_sign(row["overall_preference"], "overall_preference", -3, 3)
    texts = (fields.text(row, "response1"), fields.text(row, "response2"))
    return conversation(row, "helpsteer3", found.messages, judged(row, texts, verdict))


def _safe_rlhf(row: Row) -> list[Conversation]:
    """Better and safer are two verdicts; an unsafe answer is bad, whichever is the better."""
    found = asked.prompt(row, "prompt")
    texts = (fields.text(row, "response_0"), fields.text(row, "response_1"))
    verdict = by_index(row["better_response_id"], "better_response_id")
    candidates = judged(row, texts, verdict, found.was_rendered)
    unsafe, safer = _unsafe(row), _safer(row, verdict)
    if all(unsafe):
        candidates = [Candidate(c.text, Disliked()) for c in candidates]
    elif unsafe[verdict == "second"] or (any(unsafe) and safer != verdict):
        row.leave_out(Reason.SCORES_CONTRADICT)
        candidates = [Candidate(c.text, Ungraded()) for c in candidates]
    return conversation(row, "safe_rlhf", found.messages, candidates)


def _unsafe(row: Row) -> list[bool]:
    columns = ("is_response_0_safe", "is_response_1_safe")
    return [column in row.filled and not labels.is_liked(row[column], column) for column in columns]


def _safer(row: Row, verdict: Verdict) -> Verdict:
    value = row.value("safer_response_id")
    return verdict if value is None else by_index(value, "safer_response_id")


def _shp(row: Row) -> list[Conversation]:
    found = asked.prompt(_without_history(row), "history")
    verdict: Verdict = "first" if _zero_or_one(row["labels"], "labels") else "second"
    texts = (fields.text(row, "human_ref_A"), fields.text(row, "human_ref_B"))
    return conversation(row, "shp", found.messages, judged(row, texts, verdict))


def _without_history(row: Row) -> Row:
    """SHP's `history` is the post itself, and no earlier turns."""
    text = fields.text(row, "history")
    bare = Row({"history": text}, row.line)
    bare.filled = frozenset()
    return bare


def _webgpt(row: Row) -> list[Conversation]:
    question = row.listed("question")
    text = fields.text(question, "full_text") if isinstance(question, dict) else question
    if not isinstance(text, str):
        raise ValueError(f'"question" is {fields.kind_of(question)}, not a text')
    candidates = []
    for n in (0, 1):
        score = labels.number(row.value(f"score_{n}"), f"score_{n}")
        candidates.append(Candidate(fields.text(row, f"answer_{n}"), Rated(score, _WEBGPT)))
    return conversation(row, "webgpt", asked.user(text), candidates)


def _arena(row: Row) -> list[Conversation]:
    winner = str(row.value("winner")).strip().lower()
    if winner not in _WINNERS:
        raise labels.not_understood("winner", row.value("winner"))
    sides = [_one_exchange(row, column) for column in ("conversation_a", "conversation_b")]
    if sides[0][0] != sides[1][0]:
        raise RowLeftOut(Reason.COLUMNS_DISAGREE, "the two conversations have other questions")
    candidates = judged(row, (sides[0][1], sides[1][1]), _WINNERS[winner])
    return conversation(row, "arena", asked.in_context(row, sides[0][0]), candidates)


def _arena_columns(row: Row) -> list[Conversation]:
    """The 55k comparisons: lists of texts, and a column of 0 or 1 for each outcome."""
    won = [
        verdict
        for column, verdict in _OUTCOMES.items()
        if column in row.filled and _zero_or_one(row[column], column)
    ]
    if len(won) != 1:
        raise RowLeftOut(Reason.LABEL_NOT_UNDERSTOOD, f"{len(won)} of the outcomes are 1")
    asked_for, first, second = (
        _only_text(row, column) for column in ("prompt", "response_a", "response_b")
    )
    messages = asked.in_context(row, asked.user(asked_for))
    return conversation(row, "arena", messages, judged(row, (first, second), won[0]))


def _only_text(row: Row, column: str) -> str:
    texts = row.listed(column)
    if not isinstance(texts, list):
        return fields.text(row, column)
    if len(texts) != 1:
        raise RowLeftOut(
            Reason.VOTE_OVER_TURNS, "the vote is over several turns, and not over one answer"
        )
    if not isinstance(texts[0], str):
        raise ValueError(f'"{column}" holds {fields.kind_of(texts[0])}, not a text')
    return texts[0]


def _one_exchange(row: Row, column: str) -> tuple[list[Message], str]:
    said = [turn.message for turn in turns.read(row.listed(column), column)]
    _check_one_answer(said)
    return said[:-1], said[-1]["content"]


def _check_one_answer(said: Sequence[Message]) -> None:
    roles = [message["role"] for message in said if message["role"] != "system"]
    if roles.count("user") > 1:
        raise RowLeftOut(
            Reason.VOTE_OVER_TURNS, "the vote is over several turns, and not over one answer"
        )
    if roles != ["user", "assistant"]:
        raise RowLeftOut(Reason.TURNS_OUT_OF_ORDER, "a conversation is no question and answer")


FORMATS: tuple[RowFormat, ...] = (
    RowFormat("helpsteer3", has("context", "response1", "response2"), _helpsteer3),
    RowFormat(
        "helpsteer2",
        has("prompt", "response_1", "response_2", "preference_strength"),
        _helpsteer2,
    ),
    RowFormat(
        "alpaca_farm", has("instruction", "output_1", "output_2", "preference"), _alpaca_farm
    ),
    RowFormat(
        "safe_rlhf", has("prompt", "response_0", "response_1", "better_response_id"), _safe_rlhf
    ),
    RowFormat(
        "shp", has("history", "human_ref_A", "human_ref_B", "labels"), _shp, passes_over=_SHP_OTHERS
    ),
    RowFormat(
        "webgpt",
        has("question", "answer_0", "answer_1"),
        _webgpt,
        passes_over=("quotes_0", "quotes_1", "tokens_0", "tokens_1"),
    ),
    RowFormat("arena", has("conversation_a", "conversation_b", "winner"), _arena),
    RowFormat(
        "arena",
        has("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
        _arena_columns,
    ),
)
