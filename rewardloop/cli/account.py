"""How an inspection and an import's account look in a terminal. Pure: plain data in, lines out.

The data are those of `datasets.inspection.report`, so that a file looks the same whoever read it.
"""

from collections.abc import Mapping
from typing import Any

_NUM_NAMED = 12
"""Columns that a line names; `--json` has them all."""
_LONGEST = 160
"""Characters of a turn in an example."""


def counted(number: int, one: str, more: str = "") -> str:
    """As in "1 prompt" and "2 prompts"; `more` is how `one` is said of several."""
    return f"{number} {one if number == 1 else more or f'{one}s'}"


def account_lines(account: Mapping[str, Any], unit: str = "line") -> list[str]:
    """What a file held, and what was not read of it."""
    lines = [
        f"{counted(account['num_rows'], 'row')}, read as {_named(account['formats']) or 'nothing'}",
        f"{counted(account['num_prompts'], 'prompt')}: {account['num_references']} with a "
        f"reference, {account['num_ranked']} with answers in order",
        *_columns("columns read", account["columns_used"]),
        *_columns("columns not needed", account["columns_passed_over"]),
        *_columns("columns that no reader knows, NOT read", account["columns_unknown"]),
    ]
    if account["duplicates"]:
        repeat = counted(account["duplicates"], "row repeats", "rows repeat")
        lines.append(f"{repeat} a prompt and its answers")
    if account["later_turns"]:
        later = ("turn after an answer is", "turns after an answer are")
        lines.append(f"{counted(account['later_turns'], *later)} not read")
    if account["cut_sources"]:
        lines.append(f"{counted(account['cut_sources'], 'id is', 'ids are')} cut to 500 characters")
    lines += account["notes"]
    return [*lines, *left_out_lines(account["left_out"], unit)]


def _columns(title: str, columns: Mapping[str, int]) -> list[str]:
    return [f"{title}: {_named(columns)}"] if columns else []


def _named(counts: Mapping[str, int]) -> str:
    named = [f"{name} ({count})" for name, count in list(counts.items())[:_NUM_NAMED]]
    more = len(counts) - len(named)
    return ", ".join([*named, f"and {more} more"] if more else named)


def left_out_lines(left_out: Mapping[str, Any], unit: str = "line") -> list[str]:
    """A line for each reason."""
    if not left_out:
        return ["left out: nothing"]
    return ["left out:", *(_left_out(reason, found, unit) for reason, found in left_out.items())]


def _left_out(reason: str, found: Mapping[str, Any], unit: str) -> str:
    where = f"{unit} {found['first_line']}" if "first_line" in found else found["first"]
    detail = f": {found['detail']}" if found["detail"] else ""
    return f"  {found['count']} {reason} (first at {where}{detail})"


def inspection_lines(report: Mapping[str, Any], unit: str) -> list[str]:
    """Everything that `inspect` shows."""
    lines = account_lines(report["account"], unit)
    lines += _ranked_lines(report["ranked"], unit)
    lines += ["", *_length_lines(report["lengths"], report["limits"])]
    lines += stored_lines(report["stored"]) or [
        "not compared with what is stored: no stack was asked"
    ]
    for number, example in enumerate(report["account"]["examples"], start=1):
        lines += ["", f"example {number} ({example['source']})", *_example_lines(example)]
    return lines


def _ranked_lines(ranked: Mapping[str, Any] | None, unit: str) -> list[str]:
    if ranked is None:
        return ["import-ranked would take nothing: no prompt has two answers in order"]
    return [
        f"import-ranked would take {counted(ranked['num_prompts'], 'prompt')} with "
        f"{counted(ranked['num_responses'], 'answer')}",
        *(f"  {line}" for line in left_out_lines(ranked["left_out"], unit)),
    ]


def _length_lines(lengths: Mapping[str, Any], limits: Mapping[str, Any] | None) -> list[str]:
    of = f" of {lengths['version']}" if lengths["version"] else ""
    lines = [
        f"{name} length in {lengths['unit']}{of}: "
        + ", ".join(f"{what} {found[what]}" for what in ("p50", "p90", "p99", "max"))
        for name in ("prompt", "answer")
        if (found := lengths[name]) is not None
    ]
    if limits is None:
        return lines
    if limits["prompts_over_context"] is not None:
        leave = counted(limits["prompts_over_context"], "prompt leaves", "prompts leave")
        lines.append(
            f"{leave} no room for {limits['max_tokens']} tokens of answer in the engine's context "
            f"of {limits['context']}"
        )
    exceed = ("answer with its prompt exceeds", "answers with their prompt exceed")
    return [
        *lines,
        f"{counted(limits['answers_over_max_length'], *exceed)} {limits['max_length']} tokens, "
        "which is what training takes unless told otherwise",
    ]


def stored_lines(stored: Mapping[str, Any] | None) -> list[str]:
    """How the prompts stand to the datasets."""
    if stored is None:
        return []
    known = counted(stored["known"], "prompt is", "prompts are")
    lines = [f"{known} in {stored['dataset']!r} already"]
    return lines + overlap_lines(stored)


def overlap_lines(found: Mapping[str, Any]) -> list[str]:
    """Questions that stand elsewhere: what a run measures by, it does not train on."""
    lines = []
    if found.get("elsewhere"):
        where = ", ".join(f"{num} in {name!r}" for name, num in sorted(found["elsewhere"].items()))
        lines.append(f"same questions in other datasets: {where}")
        lines.append(
            "  a run does not train on the prompts of the datasets that it evaluates or validates "
            "with, and says how many it leaves out"
        )
    if found.get("held_out"):
        held_out = counted(found["held_out"], "question is", "questions are")
        lines.append(f"{held_out} held out by a run to measure its judges")
    return lines


def _example_lines(example: Mapping[str, Any]) -> list[str]:
    turns = [f"  {m['role']}: {_short(m['content'])}" for m in example["messages"]]
    answers = [f"  -> {_grade(c['grade'])}: {_short(c['text'])}" for c in example["candidates"]]
    return [*turns, *(answers or ["  (no answer)"])]


def _grade(grade: Mapping[str, Any]) -> str:
    """As in `rank 0`, or `rated 4.0 of helpfulness`."""
    match grade["kind"]:
        case "ranked":
            return f"rank {grade['rank']}"
        case "rated":
            return f"rated {grade['value']:g} of {grade['scale']['name']}"
        case kind:
            return str(kind)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
