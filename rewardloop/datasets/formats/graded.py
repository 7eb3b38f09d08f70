"""Answers that carry their own rank or rating: UltraFeedback, Nectar, HelpSteer, Prometheus,
Stack Exchange, OpenAI's summaries, and our own rankings.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from rewardloop.datasets import fields, labels, marks, meaning
from rewardloop.datasets.fields import Raw
from rewardloop.datasets.form import (
    Candidate,
    Conversation,
    Grade,
    Ranked,
    Rated,
    Scale,
    Ungraded,
)
from rewardloop.datasets.formats import asked
from rewardloop.datasets.formats.asked import Asked
from rewardloop.datasets.formats.pairs import by_index, judged
from rewardloop.datasets.formats.shape import RowFormat, conversation, has
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, is_filled, parsed, says_something

_ULTRAFEEDBACK = Scale("ultrafeedback_overall", 1, 10)
_FINE_GRAINED = Scale("ultrafeedback_fine_grained", 1, 5)
_HELPSTEER = Scale("helpsteer_helpfulness", 0, 4)
_PROMETHEUS = Scale("prometheus", 1, 5)
_DISTILABEL = Scale("distilabel", 1, 5)
_STACK_EXCHANGE = Scale("stack_exchange_pm_score")
_SUMMARY = Scale("summary_overall", 1, 7)
_LIST_QUESTIONS = ("instruction", "prompt", "input", "question")
_LIST_TEXTS = ("generations", "responses", "completions", "answers", "outputs")
_LIST_RATINGS = ("ratings", "scores", "rewards")
_OBJECT_TEXTS = ("text", "response", "answer", "completion", "output", "generation", "content")
_OBJECT_RATINGS = ("score", "rating", "reward", "overall_score", "stars")
_HELPSTEER_OTHERS = ("correctness", "coherence", "complexity", "verbosity")


def _ranked(row: Row) -> list[Conversation]:
    """Rewardloop's own: `{"prompt", "responses": [{"rank", "text"}]}`."""
    found = asked.prompt(row, "prompt")
    answers = (
        fields.children({"responses": row.listed("responses")}, "responses")
        if ("responses" in row.filled)
        else fields.children(row, "responses")
    )
    candidates = [
        c
        for number, raw in enumerate(answers, start=1)
        if (c := ranked_answer(row, raw, "text", f"reply {number}", found.was_rendered))
    ]
    return conversation(row, "ranked", found.messages, candidates)


def ranked_answer(row: Row, raw: Raw, key: str, whose: str, after_marks: bool) -> Candidate | None:
    """One ranked answer; None where it has no rank, or is marked as deleted.

    Raises:
        ValueError: the rank or the text is malformed.
    """
    value = raw.get("rank")
    rank = labels.rank(value, whose) if is_filled(value) else None
    if raw.get("deleted") is True:
        row.leave_out(Reason.DELETED)
        return None
    _check_keys(raw, whose, {"rank", key})
    text = fields.text(raw, key)
    if rank is None:
        row.leave_out(Reason.UNRANKED)
        return None
    return Candidate(marks.answer(text, after_marks), Ranked(rank))


def _nectar(row: Row) -> list[Conversation]:
    found = asked.prompt(row, "prompt")
    answers = fields.children({"answers": row.listed("answers")}, "answers")
    candidates = [
        c
        for number, raw in enumerate(answers, start=1)
        if (c := ranked_answer(row, raw, "answer", f"answer {number}", found.was_rendered))
    ]
    return conversation(row, "nectar", found.messages, candidates)


def _is_nectar(filled: frozenset[str], row: Row) -> bool:
    answers = row.peek("answers")
    return "prompt" in filled and isinstance(answers, list) and "rank" in _first(answers)


def _first(values: list[object]) -> Mapping[str, object]:
    first = values[0] if values else None
    return cast(Mapping[str, object], first) if isinstance(first, dict) else {}


def _ultrafeedback(row: Row) -> list[Conversation]:
    found = asked.instruction(row, "instruction")
    completions = fields.children({"completions": row.listed("completions")}, "completions")
    candidates = [_completion(row, raw) for raw in completions]
    return conversation(row, "ultrafeedback", found.messages, candidates)


def _completion(row: Row, raw: Raw) -> Candidate:
    text = fields.text(raw, "response")
    overall, fine = raw.get("overall_score"), raw.get("fine-grained_score")
    grade: Grade = Ungraded()
    if is_filled(overall):
        grade = Rated(labels.number(overall, "overall_score"), _ULTRAFEEDBACK)
    elif is_filled(fine):
        grade = Rated(labels.number(fine, "fine-grained_score"), _FINE_GRAINED)
    if is_filled(overall) and is_filled(fine) and _contradict(overall, fine):
        row.leave_out(Reason.SCORES_CONTRADICT)
        grade = Ungraded()
    return Candidate(text, grade)


def _contradict(overall: object, fine: object) -> bool:
    """The raw set has answers that fail on every aspect and stand at 10: a slip of a decimal."""
    return labels.number(overall, "overall_score") >= 9 and labels.number(fine, "fine") <= 2


def _parallel_lists(row: Row) -> list[Conversation]:
    """`generations` and `ratings` of equal length, as distilabel's UltraFeedback task has them."""
    question, texts_column, ratings_column = _lists(row.filled)
    found = asked.prompt(row, question)
    texts, ratings = row.listed(texts_column), row.listed(ratings_column)
    if not isinstance(texts, list) or not isinstance(ratings, list) or len(texts) != len(ratings):
        raise ValueError(
            f'"{texts_column}" and "{ratings_column}" are not two lists of equal length'
        )
    numbers = [labels.number(r, ratings_column) if is_filled(r) else None for r in ratings]
    scale = _scale_of(ratings_column, numbers)
    candidates = [
        Candidate(
            marks.answer(_text(text, texts_column), found.was_rendered),
            Ungraded() if n is None else Rated(n, scale),
        )
        for text, n in zip(texts, numbers, strict=True)
    ]
    return conversation(row, "distilabel", found.messages, candidates)


def _lists(filled: frozenset[str]) -> tuple[str, str, str]:
    """The columns of question, texts and ratings; an empty name where one is missing."""
    question, texts, ratings = (
        next((key for key in keys if key in filled), "")
        for keys in (_LIST_QUESTIONS, _LIST_TEXTS, _LIST_RATINGS)
    )
    return question, texts, ratings


def _are_lists(filled: frozenset[str], row: Row) -> bool:
    columns = _lists(filled)
    return all(columns) and all(isinstance(parsed(row.peek(key)), list) for key in columns[1:])


def _scale_of(column: str, numbers: Sequence[float | None]) -> Scale:
    """distilabel rates from 1 to 5; other lists' scales are not known."""
    is_known = column == "ratings" and all(n is None or 1 <= n <= 5 for n in numbers)
    return _DISTILABEL if is_known else Scale(f"list_of_{column}")


def _text(value: object, column: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{column}" holds {fields.kind_of(value)}, not a text')
    return value


def _ranks_list(row: Row) -> list[Conversation]:
    """Texts, and beside them a list with the rank of each; the lowest is the best."""
    question, texts_column, _ = _lists(row.filled)
    found = asked.prompt(row, question)
    column = "ranks" if "ranks" in row.filled else "rank"
    texts, ranks = row.listed(texts_column), row.listed(column)
    if not isinstance(texts, list) or not isinstance(ranks, list) or len(texts) != len(ranks):
        raise ValueError(f'"{texts_column}" and "{column}" are not two lists of equal length')
    candidates = [
        Candidate(
            marks.answer(_text(text, texts_column), found.was_rendered),
            Ranked(labels.rank(rank, f"answer {number}")),
        )
        for number, (text, rank) in enumerate(zip(texts, ranks, strict=True), start=1)
    ]
    return conversation(row, "ranked", found.messages, candidates)


def _are_ranks(filled: frozenset[str], row: Row) -> bool:
    question, texts, _ = _lists(filled)
    columns = [texts, "ranks" if "ranks" in filled else "rank"]
    return bool(question and texts) and all(_are_plain(row.peek(key)) for key in columns)


def _are_plain(value: object) -> bool:
    value = parsed(value)
    return isinstance(value, list) and bool(value) and not isinstance(value[0], dict)


def _rated_objects(row: Row) -> list[Conversation]:
    """`{"prompt", "responses": [{"text", "score"}]}`: each answer with its own rating."""
    question, column = _object_columns(row.filled)
    found = asked.prompt(row, question)
    candidates = []
    answers = fields.children({column: row.listed(column)}, column)
    for number, raw in enumerate(answers, start=1):
        text_key, key = _keys_of_rated(raw)
        _check_keys(raw, f"answer {number}", {text_key, key})
        rating = labels.number(raw[key], key) if is_filled(raw.get(key)) else None
        grade: Grade = Ungraded() if rating is None else Rated(rating, Scale(f"{column}.{key}"))
        text = marks.answer(fields.text(raw, text_key), found.was_rendered)
        candidates.append(Candidate(text, grade))
    return conversation(row, "ranked", found.messages, candidates)


def _check_keys(raw: Raw, whose: str, read: set[str]) -> None:
    """An answer's own marks and further grades are read, or the row is left out."""
    for key, value in raw.items():
        if key not in read and says_something(value) and meaning.speaks_of_answer(key, value):
            raise RowLeftOut(Reason.COLUMN_NOT_READ, f'the key "{key}" of {whose} is not read')


def _object_columns(filled: frozenset[str]) -> tuple[str, str]:
    question = next((key for key in _LIST_QUESTIONS if key in filled), "")
    return question, next((key for key in (*_LIST_TEXTS, "candidates") if key in filled), "")


def _keys_of_rated(raw: Mapping[str, object]) -> tuple[str, str]:
    text, rating = (
        next((key for key in keys if key in raw), "") for keys in (_OBJECT_TEXTS, _OBJECT_RATINGS)
    )
    return text, rating


def _are_rated_objects(filled: frozenset[str], row: Row) -> bool:
    question, column = _object_columns(filled)
    answers = parsed(row.peek(column)) if column else None
    if not question or not isinstance(answers, list) or not answers:
        return False
    return all(
        isinstance(raw, dict) and "rank" not in raw and all(_keys_of_rated(raw)) for raw in answers
    )


def _helpsteer(row: Row) -> list[Conversation]:
    found = asked.prompt(row, "prompt")
    text = marks.answer(fields.text(row, "response"), found.was_rendered)
    rating = labels.number(row["helpfulness"], "helpfulness")
    return conversation(
        row, "helpsteer", found.messages, [Candidate(text, Rated(rating, _HELPSTEER))]
    )


def _prometheus(row: Row) -> list[Conversation]:
    """The reference answer is by its definition one that gets the full score, 5."""
    messages = asked.prompt(row, "orig_instruction").messages
    candidates = []
    if "orig_reference_answer" in row.filled:
        text = fields.text(row, "orig_reference_answer")
        candidates.append(Candidate(text, Rated(5, _PROMETHEUS)))
    score = labels.number(row.value("orig_score"), "orig_score")
    candidates.append(Candidate(fields.text(row, "orig_response"), Rated(score, _PROMETHEUS)))
    return conversation(row, "prometheus", messages, candidates)


def _stack_exchange(row: Row) -> list[Conversation]:
    """`pm_score` is log2(1 + votes), one more where the asker accepted; negative votes are -1."""
    found = Asked(asked.user(fields.text(row, "question")))
    answers = fields.children({"answers": row.listed("answers")}, "answers")
    candidates = []
    for raw in answers:
        score = labels.number(raw.get("pm_score"), "pm_score")
        candidates.append(Candidate(fields.text(raw, "text"), Rated(score, _STACK_EXCHANGE)))
    return conversation(row, "stack_exchange", found.messages, candidates)


def _is_stack_exchange(filled: frozenset[str], row: Row) -> bool:
    answers = row.peek("answers")
    return "question" in filled and isinstance(answers, list) and "pm_score" in _first(answers)


def _post(row: Row) -> list[Conversation]:
    info = fields.child(row, "info")
    key = next((key for key in ("post", "article") if is_filled(info.get(key))), "post")
    title = info.get("title")
    text = fields.text(info, key)
    titled = f"{title}\n\n{text}" if isinstance(title, str) and title.strip() else text
    messages = asked.user(f"Summarize the following text.\n\n{titled}")
    return conversation(row, "summarize", messages)


def _summarize(row: Row) -> list[Conversation]:
    (found,) = _post(row)
    summaries = fields.children(row, "summaries")
    if len(summaries) != 2:
        raise ValueError(f'"summaries" holds {len(summaries)} summaries, not two')
    first, second = (fields.text(summary, "text") for summary in summaries)
    verdict = by_index(row.value("choice"), "choice")
    return conversation(row, "summarize", found.messages, judged(row, (first, second), verdict))


def _summary_axis(row: Row) -> list[Conversation]:
    (found,) = _post(row)
    summary = fields.child(row, "summary")
    axes = summary.get("axes")
    overall = axes.get("overall") if isinstance(axes, dict) else None
    if not is_filled(overall):
        raise RowLeftOut(Reason.NOT_ANNOTATED, "the summary has no overall score")
    grade = Rated(labels.number(overall, "overall"), _SUMMARY)
    return conversation(
        row, "summarize", found.messages, [Candidate(fields.text(summary, "text"), grade)]
    )


FORMATS: tuple[RowFormat, ...] = (
    RowFormat(
        "ultrafeedback",
        has("instruction", "completions"),
        _ultrafeedback,
        passes_over=("correct_answers", "incorrect_answers", "models"),
    ),
    RowFormat(
        "distilabel",
        _are_lists,
        _parallel_lists,
        passes_over=(
            "rationales",
            "generation_models",
            "generation_prompt",
            "raw_generation",
            "prompt",
            "input",
        ),
    ),
    RowFormat("ranked", _are_ranks, _ranks_list),
    RowFormat("nectar", _is_nectar, _nectar),
    RowFormat("helpsteer", has("prompt", "response", "helpfulness"), _helpsteer, _HELPSTEER_OTHERS),
    RowFormat(
        "prometheus",
        has("orig_instruction", "orig_response"),
        _prometheus,
        passes_over=(
            "instruction",
            "input",
            "output",
            "orig_feedback",
            "orig_criteria",
            *(f"orig_score{n}_description" for n in range(1, 6)),
            "messages",
        ),
    ),
    RowFormat("stack_exchange", _is_stack_exchange, _stack_exchange),
    RowFormat("summarize", has("info", "summaries"), _summarize, passes_over=("extra",)),
    RowFormat("summarize", has("info", "summary"), _summary_axis),
    RowFormat("ranked", _are_rated_objects, _rated_objects),
    RowFormat("ranked", has("prompt", "responses"), _ranked),
)
