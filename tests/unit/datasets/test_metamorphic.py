"""What must not change, or must change in a known way, when a file is written otherwise.

Every published format's rows are changed in ways that say nothing (another order,
another kind of file, a repeated row, an unknown column) or that say the opposite (a
label flipped, two sides swapped), and the result must follow or the account must tell.

Tests `rewardloop.datasets.reading`, `rewardloop.datasets.grouping`.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet

from benchmarks.formats import folders, in_order, rows_of
from rewardloop.datasets import Account, read_prompts, read_ranked
from rewardloop.datasets.files import Item, read_items
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each

Rows = list[dict[str, Any]]
FORMATS = [folder.name for folder in folders()]
FOLDERS = {folder.name: folder for folder in folders()}


@dataclass(frozen=True)
class Meaning:
    """All that training can see of a file; no line numbers and no order of rows."""

    references: dict[str, str | None]
    orders: dict[str, list[set[str]]]
    account: Account | None = None
    """None where the file is refused."""

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Meaning)
        return (self.references, self.orders) == (other.references, other.orders)


def rows(name: str) -> Rows:
    return [dict(item.raw) for item in read_items(rows_of(FOLDERS[name])) if isinstance(item, Item)]


def meaning(path: Path) -> Meaning:
    references: dict[str, str | None] = {}
    orders: dict[str, list[set[str]]] = {}
    account = None
    try:
        found = read_prompts(path)
        account = found.account
        references = {json.dumps(prompt.messages): prompt.reference for prompt in found.prompts}
        assert len(references) == len(found.prompts)
        if account.num_ranked:  # without any, read_ranked refuses the file
            for ranked in read_ranked(path).prompts:
                orders[json.dumps(ranked.prompt.messages)] = in_order(ranked)
        assert len(orders) == account.num_ranked
    except InvalidInput as refusal:
        if len(refusal.message) < 40:
            raise
    return Meaning(references, orders, account)


def lines(folder: Path, held: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in held), "utf-8")
    return path


def meant(folder: Path, held: Sequence[Mapping[str, Any]]) -> Meaning:
    return meaning(lines(folder, held))


@cache
def original(name: str) -> Meaning:
    """What the format's own file says."""
    return meaning(rows_of(FOLDERS[name]))


Law = Callable[[Path, str], None]
LAWS: list[Law] = []
"""What holds of every format; each is tried in a folder of its own."""


def law(holds: Law) -> Law:
    LAWS.append(holds)
    return holds


# Writers: the same rows in every kind of file.


def columns(held: Rows) -> list[str]:
    return list(dict.fromkeys(key for row in held for key in row))


def table(held: Rows) -> Any:
    return pyarrow.Table.from_pylist([{key: row.get(key) for key in columns(held)} for row in held])


def delimited(path: Path, held: Rows, delimiter: str, structure: Callable[[Any], str]) -> None:
    def cell(value: Any) -> Any:
        return structure(value) if isinstance(value, list | dict) else value

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(held), delimiter=delimiter)
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in held)


def numpy_repr(value: Any) -> str:
    """As pandas prints a list of a Parquet file: without commas."""
    if isinstance(value, list):
        return "[" + "\n ".join(numpy_repr(element) for element in value) + "]"
    return repr(value)


def arrow(path: Path, held: Rows) -> None:
    written = table(held)
    with ipc.new_stream(path, written.schema) as file:
        file.write_table(written)


def packed(path: Path, held: Rows, pack: Callable[[bytes], bytes]) -> None:
    path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in held).encode()))


def shards(path: Path, held: Rows) -> None:
    path.mkdir()
    schema = table(held).schema
    for number in range(2):
        part = pyarrow.Table.from_pylist(held[number::2], schema=schema)
        parquet.write_table(part, path / f"train-0000{number}-of-00002.parquet")


KINDS: dict[str, Callable[[Path, Rows], None]] = {
    "rows.json": lambda path, held: path.write_text(json.dumps(held, indent=1)) and None,
    "wrapped.json": lambda path, held: path.write_text(json.dumps({"data": held})) and None,
    "lines.json": lambda path, held: lines(path.parent, held, path.name) and None,
    "rows.jsonl.zst": lambda path, held: packed(
        path, held, lambda text: pyarrow.Codec("zstd").compress(text, asbytes=True)
    ),
    "json.csv": lambda path, held: delimited(path, held, ",", json.dumps),
    "python.csv": lambda path, held: delimited(path, held, ",", repr),
    "numpy.csv": lambda path, held: delimited(path, held, ",", numpy_repr),
    "rows.tsv": lambda path, held: delimited(path, held, "\t", json.dumps),
    "rows.parquet": lambda path, held: parquet.write_table(table(held), path),
    "rows.arrow": arrow,
    "shards": shards,
}


def encoded(path: Path, held: Rows) -> bool:
    """Whether this kind of file can hold these rows: a column of a table has one type."""
    try:
        KINDS[path.name](path, held)
    except pyarrow.ArrowException:
        return False
    return True


@law
def every_kind_of_file_says_the_same(tmp_path: Path, name: str) -> None:
    held = rows(name)
    expected = original(name)
    kinds = [kind for kind in KINDS if encoded(tmp_path / kind, held)]
    assert len(kinds) >= 8
    assert {kind: meaning(tmp_path / kind) for kind in kinds} == dict.fromkeys(kinds, expected)


# Places are drawn by the format's name: each format has others, and always the same.


@law
def the_order_of_rows_says_nothing(tmp_path: Path, name: str) -> None:
    held = rows(name)
    assert meant(tmp_path, held[::-1]) == original(name)
    assert meant(tmp_path, Random(name).sample(held, len(held))) == original(name)


@law
def an_unknown_text_is_told(tmp_path: Path, name: str) -> None:
    held = rows(name)
    before = original(name)
    column = Random(name).choice(["zq", "Zusatz", "remarks of the reviewer", "col 7"])
    number = Random(name).randrange(len(held))
    changed = [row | {column: "Some words."} if n == number else row for n, row in enumerate(held)]
    after = meant(tmp_path, changed)
    if after == before and after.account is not None and before.account is not None:
        told = column in after.account.columns_unknown
        assert told or held_is_left_out(tmp_path, changed[number])
    else:
        assert after.account is None or left_out(after) > left_out(before)


def held_is_left_out(folder: Path, row: dict[str, Any]) -> bool:
    """Whether this row is left out or refused by itself."""
    alone = meant(folder, [row])
    return not alone.references or alone.account is None or bool(alone.account.left_out)


def left_out(found: Meaning) -> int:
    told = found.account.left_out.values() if found.account else []
    return sum(each.count for each in told)


@law
def a_repeated_row_says_nothing_new(tmp_path: Path, name: str) -> None:
    held = rows(name)
    before = original(name)
    place = Random(name).randint(0, len(held))
    after = meant(tmp_path, [*held[:place], Random(name).choice(held), *held[place:]])
    assert after == before
    if after.account is not None and before.account is not None:
        assert after.account.num_rows == len(held) + 1


@law
def a_row_that_says_nothing_is_left_out(tmp_path: Path, name: str) -> None:
    held = rows(name)
    before = original(name)
    after = meant(tmp_path, [{}, {"zq": None}, *held, {"zq": ""}])
    assert after == before
    if after.account is not None and before.account is not None:
        assert after.account.num_rows == before.account.num_rows + 3
        assert left_out(after) == left_out(before) + 3


@law
def two_halves_say_what_the_whole_says(tmp_path: Path, name: str) -> None:
    """But for prompts with rows in both: their candidates are compared within a file only."""
    held = rows(name)
    whole = original(name)
    cut = Random(name).randint(0, len(held))
    halves = [meant(tmp_path, part) for part in (held[:cut], held[cut:]) if part]
    if name == "oasst_messages":  # A row is one message, so a cut leaves replies without a prompt.
        read = [half.account for half in halves if half.account is not None]
        assert len(read) < len(halves) or cut in (0, 4, 6) or "no_prompt" in read[1].left_out
        return
    assert set().union(*(half.references for half in halves)) == set(whole.references)
    for half, other in zip(halves, reversed(halves), strict=True):
        for prompt in half.references.keys() - (other.references if len(halves) == 2 else {}):
            assert half.references[prompt] == whole.references[prompt]
            assert half.orders.get(prompt) == whole.orders.get(prompt)


def flipped(value: Any) -> Any:
    """A thumb turned round."""
    words = {"thumbs_up": "thumbs_down", "thumbs_down": "thumbs_up"}
    return words[value] if isinstance(value, str) else not value


THUMBS = [
    *("kto_trl", "kto_trl_conversational", "kto_messages"),
    *("kto_alpaca", "kto_sharegpt", "kto_words"),
]


@pytest.mark.parametrize("name", THUMBS)
def test_a_flipped_label_says_the_opposite(tmp_path: Path, name: str) -> None:
    held = rows(name)
    key = "kto_tag" if "kto_tag" in held[0] else "label"
    before = original(name)
    after = meant(tmp_path, [row | {key: flipped(row[key])} for row in held])
    assert after.orders == {prompt: order[::-1] for prompt, order in before.orders.items()}
    for prompt, order in after.orders.items():
        assert order[0] == {after.references[prompt]}
    (alone,) = before.references.keys() - before.orders.keys()
    assert (before.references[alone], after.references[alone]) == (None, "Lyon.")


PAIRS = [
    *(("chosen", "rejected"), ("chosen-rating", "rejected-rating"), ("conversation_a",) * 2),
    *(("score_chosen", "score_rejected"), ("rating_chosen", "rating_rejected")),
    *(("preferred_output", "non_preferred_output"), ("response_1", "response_2")),
    *(("response1", "response2"), ("response_0", "response_1"), ("answer_0", "answer_1")),
    *(("human_ref_A", "human_ref_B"), ("conversation_a", "conversation_b")),
    *(("is_response_0_safe", "is_response_1_safe"),),
]
SWAPPED = [
    *("ultrafeedback_binarized", "argilla_ultrafeedback_cleaned", "hh_rlhf", "orca_dpo_pairs"),
    *("capybara_dpo", "alpaca_dpo", "sharegpt_dpo", "openai_preference", "helpsteer2_preference"),
    *("helpsteer3", "chatbot_arena", "shp", "webgpt_comparisons", "trl_preference"),
]
BESIDE = ("messages", "score_chosen", "score_rejected")
"""What repeats the chosen side, and must go with it."""


def swapped(row: dict[str, Any]) -> dict[str, Any]:
    found = dict(row)
    for left, right in PAIRS:
        if left in row and right in row and left not in BESIDE and "rating" not in left:
            found |= {left: row[right], right: row[left]}
    if "messages" in row:
        found["messages"] = found["chosen"]
    return found


@pytest.mark.parametrize("name", SWAPPED)
def test_swapped_sides_say_the_opposite(tmp_path: Path, name: str) -> None:
    """The texts change places; scores and verdicts, which belong to the places, stay."""
    held = rows(name)
    before = original(name)
    after = meant(tmp_path, [swapped(row) for row in held])
    assert after.orders == {prompt: order[::-1] for prompt, order in before.orders.items()}
    assert after.orders
    for prompt, order in after.orders.items():
        assert after.references[prompt] in order[0] | {None}
        assert after.references[prompt] not in order[-1]


def rated(key: str, best: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Turns a rating round; texts stay texts."""

    def turned(row: dict[str, Any]) -> dict[str, Any]:
        return row | {key: type(row[key])(best - float(row[key]))}

    return turned


def within(key: str, turned: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The same for each answer in a list."""
    return lambda row: row | {key: [turned(answer) for answer in row[key]]}


TURNED = {
    "helpsteer": rated("helpfulness", 4),
    "helpsteer2": rated("helpfulness", 4),
    "helpsteer3": rated("overall_preference", 0),
    "helpsteer2_preference": rated("preference_strength", 0),
    "nectar": within("answers", rated("rank", 4)),
    "stack_exchange_preferences": within("answers", rated("pm_score", 6)),
    "rewardloop_ranked": within("responses", rated("rank", 1)),
    "shp": rated("labels", 1),
}


@pytest.mark.parametrize("name", TURNED)
def test_ratings_that_are_turned_round_say_the_opposite(tmp_path: Path, name: str) -> None:
    held = rows(name)
    if name == "shp":  # Its votes go with its label.
        held = [row | {"score_A": row["score_B"], "score_B": row["score_A"]} for row in held]
    before = original(name)
    after = meant(tmp_path, [TURNED[name](row) for row in held])
    assert after.orders == {prompt: order[::-1] for prompt, order in before.orders.items()}
    for prompt, order in after.orders.items():
        assert after.references[prompt] not in order[-1]


MEANINGFUL = [
    *(("system", "Answer as a pirate."), ("history", [["Hi", "Hello!"]]), ("images", ["a.png"])),
    *(("tools", [{"name": "search"}]), ("label", False), ("rejected", "Words."), ("deleted", True)),
    *(("rating", 0), ("status", "discarded"), ("context", "A passage."), ("chosen", "Words.")),
    *(("messages", [{"role": "user", "content": "Else?"}]), ("audio", {"path": "a.wav"})),
]
ALLOWED = {"prometheus": ["messages"]}
"""There it is the judge's own conversation."""


@law
def a_column_that_carries_meaning_is_never_ignored(tmp_path: Path, name: str) -> None:
    """It changes what is read, or its row is left out or refused."""
    held = rows(name)
    before = original(name)
    first = next((row for row in held if not held_is_left_out(tmp_path, row)), held[0])
    others = [row for row in held if row is not first]
    ignored = []
    for column, value in MEANINGFUL:
        if column not in first:
            after = meant(tmp_path, [first | {column: value}, *others])
            if after == before and left_out(after) == left_out(before) and before.account:
                ignored.append(column)
    assert ignored == ALLOWED.get(name, [])


@pytest.mark.parametrize("name", FORMATS)
def test_every_law_holds(tmp_path: Path, name: str) -> None:
    def holds(law: Law) -> None:
        (folder := tmp_path / law.__name__).mkdir()
        law(folder, name)

    for_each("law", LAWS)(holds)()


def test_the_meaning_that_is_compared_sees_references_and_orders(tmp_path: Path) -> None:
    """So that no test above compares nothing with nothing."""
    found = [original(name) for name in FORMATS]
    references, orders = zip(
        *((len(one.references), len(one.orders)) for one in found), strict=True
    )
    assert sum(references) >= 100
    assert sum(orders) >= 40
