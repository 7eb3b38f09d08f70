"""Is every published format read as its authors meant it? `make formats`.

Owns the comparison: each folder of `tests/data/formats` holds a few rows in the
shape of one published format, and what a careful human expects of them. Every
format is read as prompts and as rankings. One counts as `silent` if anything is
other than expected, or if a row or a column of it is gone without a word.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop.datasets import read_prompts, read_ranked
from rewardloop.datasets.files import Item, read_items
from rewardloop.datasets.row import is_filled
from rewardloop.errors import InvalidInput

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "formats"
ANY = "?"
"""In a list of reasons: one, whichever it is."""

_MIN_LENGTH = 40
"""A refusal that is shorter cannot say what is wrong and what mends it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one format."""

    name: str
    num_prompts: int
    num_ranked: int
    refused: bool
    """As prompts, which was expected."""
    problems: tuple[str, ...]


def folders() -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.is_dir())


def rows_of(folder: Path) -> Path:
    """The file that holds the format's rows."""
    (path,) = folder.glob("rows.*")
    return path


def tried(folder: Path) -> Outcome:
    """The format, read as prompts and as rankings."""
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    path = rows_of(folder)
    prompts, found_prompts = _outcome(read_prompts, path)
    ranked, found_ranked = _outcome(read_ranked, path)
    problems = [
        *_problems("prompts", expected, prompts, found_prompts, expected_prompts),
        *_problems("ranked", expected, ranked, found_ranked, expected_ranked),
        *_unaccounted(path),
    ]
    return Outcome(
        name=folder.name,
        num_prompts=len(found_prompts.prompts) if found_prompts else 0,
        num_ranked=len(found_ranked.prompts) if found_ranked else 0,
        refused=found_prompts is None,
        problems=tuple(problems),
    )


def _outcome(read: Callable[[Path], Any], path: Path) -> tuple[str, Any]:
    """The refusal and None, or "" and what was read."""
    try:
        return "", read(path)
    except InvalidInput as error:
        return error.message, None


def _problems(
    kind: str,
    expected: Mapping[str, Any],
    refusal: str,
    found: Any,
    compared: Callable[[Sequence[Any], Any], Iterator[str]],
) -> Iterator[str]:
    wanted = expected.get(f"{kind}_refused")
    if wanted is None and found is None:
        yield f"{kind} are refused: {refusal}"
    elif found is None:
        if not _is_clear(refusal):
            yield f"{kind} are refused without a clear word: {refusal}"
    elif wanted is not None:
        yield f"{kind} should be refused; read were {len(found.prompts)}"
    else:
        yield from compared(expected[kind], found)
        reasons = expected["left_out" if kind == "prompts" else f"{kind}_left_out"]
        yield from _missing_reasons(kind, reasons, found.account.left_out)


def _is_clear(refusal: str) -> bool:
    return len(refusal) >= _MIN_LENGTH and "rows." in refusal


def _missing_reasons(
    kind: str, expected: Sequence[str], left_out: Mapping[str, Any]
) -> Iterator[str]:
    for reason in expected:
        if (reason == ANY and not left_out) or (reason != ANY and reason not in left_out):
            yield f"{kind}: nothing is left out for {reason}; told are {sorted(left_out)}"


def expected_prompts(expected: Sequence[Any], found: Any) -> Iterator[str]:
    """Where the prompts and references differ from what is expected."""
    left = list(found.prompts)
    for one in expected:
        same = [prompt for prompt in left if _is_prompt(one, prompt.messages)]
        if not same and not one.get("optional"):
            yield f"prompts: {one['prompt'] or one['contains']!r} is missing"
        for prompt in same:
            left.remove(prompt)
            allowed = one["reference"] if isinstance(one["reference"], list) else [one["reference"]]
            if prompt.reference not in allowed:
                yield f"prompts: the reference is {prompt.reference!r}, not one of {allowed}"
        if len(same) > 1:
            yield f"prompts: {one['prompt']!r} is there {len(same)} times"
    yield from (f"prompts: nobody asked for {prompt.messages}" for prompt in left)


def expected_ranked(expected: Sequence[Any], found: Any) -> Iterator[str]:
    """Where the rankings differ from what is expected."""
    left = list(found.prompts)
    for one in expected:
        same = [ranked for ranked in left if _is_prompt(one, ranked.prompt.messages)]
        if len(same) != 1 and not one.get("optional"):
            yield f"ranked: {one['prompt'] or one['contains']!r} is there {len(same)} times"
        for ranked in same:
            left.remove(ranked)
            order = in_order(ranked)
            if order != [{text.strip() for text in level} for level in one["order"]]:
                yield f"ranked: the order is {order}, not {one['order']}"
    yield from (f"ranked: nobody asked for {ranked.prompt.messages}" for ranked in left)


def in_order(ranked: Any) -> list[set[str]]:
    """The texts of each rank without outer blanks, the best first."""
    ranks = sorted({response.rank for response in ranked.responses})
    return [{each.text.strip() for each in ranked.responses if each.rank == rank} for rank in ranks]


def _is_prompt(expected: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> bool:
    if "contains" in expected:
        text = messages[-1]["content"]
        return all(words in text for words in expected["contains"])
    wanted = expected["prompt"]
    turns = [["user", wanted]] if isinstance(wanted, str) else wanted
    return [[message["role"], message["content"]] for message in messages] == turns


def _unaccounted(path: Path) -> Iterator[str]:
    """The columns and rows of which nothing is said, when each row is read by itself."""
    for item in read_items(path):
        if not isinstance(item, Item):
            yield f"row {item.line} is broken: {item.problem}"
            continue
        for column in unaccounted_columns(item.raw):
            yield f"row {item.line}: not a word on the column {column}"


def unaccounted_columns(raw: Mapping[str, object]) -> list[str]:
    """The filled columns of a row that is read, of which its account says nothing.

    A row that is neither read, refused nor left out has no word on any.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps(raw) + "\n", "utf-8")
        _, found = _outcome(read_prompts, path)
    filled = [column for column, value in raw.items() if is_filled(value)]
    if found is None:
        return []
    account = found.account
    told = {*account.columns_used, *account.columns_passed_over, *account.columns_unknown}
    if not found.prompts and not account.left_out:
        return filled
    return [column for column in filled if column not in told] if found.prompts else []


def summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    good = [outcome for outcome in outcomes if not outcome.problems]
    return {
        "formats": len(outcomes),
        "read": sum(not outcome.refused for outcome in good),
        "refused_clearly": sum(outcome.refused for outcome in good),
        "silent": len(outcomes) - len(good),
    }


def main() -> int:
    outcomes = [tried(folder) for folder in folders()]
    for outcome in outcomes:
        state = "refused" if outcome.refused else f"{outcome.num_prompts} prompts"
        print(f"{outcome.name:32} {state:12} {outcome.num_ranked} ranked")
        for problem in outcome.problems:
            print(f"  NOT AS EXPECTED: {problem}")
    found = summary(outcomes)
    print(json.dumps(found))
    return min(found["silent"], 1)


if __name__ == "__main__":
    sys.exit(main())
