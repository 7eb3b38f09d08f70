"""CSV and TSV files: cells, quoting, headers, and rows that are broken.

Tests `rewardloop.datasets.files.delimited`, `rewardloop.datasets.files.cells`.
"""

from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets.files import BrokenLine, Item, read_items
from rewardloop.datasets.files.cells import CellKind, kind_of_column, structure
from rewardloop.datasets.files.delimited import INDEX
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each


def rows(folder: Path, content: str, name: str = "a.csv") -> list[Any]:
    path = folder / name
    path.write_bytes(content.encode())
    return list(read_items(path))


def test_quotes_newlines_and_delimiters_within_a_cell(tmp_path: Path) -> None:
    found = rows(tmp_path, 'prompt,response\r\n"A, ""b""\r\nc",  D \r\n\r\n"E",\r\n')
    assert found == [
        Item(2, {"prompt": 'A, "b"\r\nc', "response": "  D "}),
        Item(5, {"prompt": "E", "response": None}),
    ]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    assert rows(tmp_path, "\ufeffprompt,id\nA,x\n") == [Item(2, {"prompt": "A", "id": "x"})]


def test_tabs(tmp_path: Path) -> None:
    found = rows(tmp_path, "prompt\tlabel\nA, b\tTrue\nC\tFalse\n", "a.tsv")
    assert found == [
        Item(2, {"prompt": "A, b", "label": True}),
        Item(3, {"prompt": "C", "label": False}),
    ]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ",")])
def test_another_delimiter_is_read_and_told(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    path.write_text(f"prompt{mark}response\nA{mark}B\n")
    items = read_items(path)
    assert list(items) == [Item(2, {"prompt": "A", "response": "B"})]
    assert len(items.notes) == 1
    assert "is parted by" in items.notes[0]


def test_a_table_of_one_column(tmp_path: Path) -> None:
    assert rows(tmp_path, "prompt\nA\nB\n") == [Item(2, {"prompt": "A"}), Item(3, {"prompt": "B"})]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "", "2.5", "-3e2"], [1, None, 2.5, -300.0]),
        (["1", "x"], ["1", "x"]),
        (["007", "8"], ["007", "8"]),
        (["true", "FALSE"], [True, False]),
        (["true", "1"], ["true", "1"]),
        (["1", " 1"], ["1", " 1"]),
        (["nan", "2", "<NA>"], [None, 2, None]),
        (["None", "null"], ["None", "null"]),
    ],
)
def test_a_columns_cells_decide_together(
    tmp_path: Path, cells: list[str], values: list[Any]
) -> None:
    found = rows(tmp_path, "prompt,grade\n" + "".join(f"A,{cell}\n" for cell in cells))
    assert [item.raw["grade"] for item in found] == values


@for_each(
    "name",
    [
        *("prompt", "response", "response_0", "response1", "human_ref_A", "output"),
        *("orig_response", "question", "reference", "system_prompt", "Chosen"),
    ],
)
def test_a_column_of_texts_stays_one(name: str) -> None:
    assert kind_of_column(name, ["42", "7"]) is CellKind.TEXT
    assert kind_of_column(name, ["True", "False"]) is CellKind.TEXT


@pytest.mark.parametrize("name", ["output", "response_1"])
def test_an_answer_in_json_stays_a_text(name: str) -> None:
    assert kind_of_column(name, ['{"city": "Paris"}', "[1, 2]"]) is CellKind.TEXT


@pytest.mark.parametrize(
    "cell",
    [
        '{"role": "user", "content": "A"}',
        "[{'from': 'human', 'value': 'A'}]",
        '{"messages": [{"role": "user", "content": "A"}]}',
        '{"dataset": "eli5", "id": "1", "full_text": "A"}',
    ],
)
def test_turns_are_read_from_a_column_of_texts(cell: str) -> None:
    assert kind_of_column("prompt", [cell]) is CellKind.STRUCTURE


@pytest.mark.parametrize(
    "name", ["score_chosen", "response_quality", "better_response_id", "is_response_0_safe", "rank"]
)
def test_a_column_about_texts_holds_numbers(name: str) -> None:
    assert kind_of_column(name, ["4", "", "2"]) is CellKind.NUMBER


TURNS = [{"role": "user", "content": 'it\'s "x"\nb'}, {"role": "assistant", "content": "y"}]


@for_each(
    "cell, value",
    [
        ('[{"role": "user", "content": "A"}]', [{"role": "user", "content": "A"}]),
        ("[{'role': 'user', 'content': None}]", [{"role": "user", "content": None}]),
        (str(TURNS), TURNS),
        (f"[{TURNS[0]}\n {TURNS[1]}]", TURNS),
        ("['a' 'b']", ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("['a'\n 'b' \"c'd\"]", ["a", "b", "c'd"]),
        ("[1 -2 3]", [1, -2, 3]),
        ("[0.5 nan]", [0.5, None]),
        ("[True False]", [True, False]),
        ("{'a': array(['x', 'y'], dtype=object)}", {"a": ["x", "y"]}),
        ("{'a': array([1, 2]), 'b': 3}", {"a": [1, 2], "b": 3}),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_lists_and_objects_as_they_are_printed(cell: str, value: object) -> None:
    assert structure(cell) == value


@for_each(
    "cell",
    [
        "[INST] Hi [/INST]",
        "{name}",
        "[1, 2",
        "[1, 2] and more",
        "[print('x')]",
        "['a' ... 'b']",
        "[datetime.datetime(2024, 1, 1)]",
        "{1: 2}",
        "[" * 5_000,
        "['a\nb']",
        "[(1, 2)]",
    ],
)
def test_what_only_begins_like_a_list_is_a_text(cell: str) -> None:
    assert structure(cell) is None


def test_lists_are_read_where_the_whole_column_holds_them(tmp_path: Path) -> None:
    found = rows(tmp_path, "prompt,turns,odd\nA,\"['x', 'y']\",\"['x']\"\nB,[],see [1]\n")
    assert [item.raw["turns"] for item in found] == [["x", "y"], []]
    assert [item.raw["odd"] for item in found] == ["['x']", "see [1]"]


def test_a_conversation_is_read_in_any_column(tmp_path: Path) -> None:
    chosen = str(TURNS).replace('"', '""')
    found = rows(tmp_path, f'chosen,label\n"{chosen}",1\njust text,0\n"[1, 2, 3]",1\n')
    assert [item.raw["chosen"] for item in found] == [TURNS, "just text", "[1, 2, 3]"]


def test_columns_of_lists_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,turns\nA,"[1, 2]"\n')
    items = read_items(path)
    list(items)
    assert items.notes == ["a.csv: lists and objects were read from turns."]


def test_rows_of_another_width_and_bad_quotes_are_broken(tmp_path: Path) -> None:
    found = rows(tmp_path, 'prompt,response\nA\nB,b,c\n"C"x,c\nD,d\n"E\ne"x,1\nF,f\n')
    assert found == [
        BrokenLine(2, "1 cells, but the header has 2 columns"),
        BrokenLine(3, "3 cells, but the header has 2 columns"),
        BrokenLine(4, "not valid CSV: ',' expected after '\"'"),
        Item(5, {"prompt": "D", "response": "d"}),
        BrokenLine(6, "not valid CSV (as far as line 7): ',' expected after '\"'"),
        Item(8, {"prompt": "F", "response": "f"}),
    ]


def test_a_quotation_mark_that_is_never_closed(tmp_path: Path) -> None:
    found = rows(tmp_path, 'prompt,response\nA,a\n"B,b\nC,c\n')
    assert found == [
        Item(2, {"prompt": "A", "response": "a"}),
        BrokenLine(3, "a quotation mark is opened and never closed (as far as line 4)"),
    ]


def test_a_column_that_is_named_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"header \(line 1\) names these columns twice: label"):
        rows(tmp_path, "prompt,label,label\nA,1,0\n")


def test_lines_that_end_in_a_carriage_return_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"line 1, the header: .*carriage return alone"):
        rows(tmp_path, "prompt,response\rA,a\rB,b\r")


def test_a_header_whose_quotation_mark_is_never_closed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"line 1, the header: a quotation mark is opened"):
        rows(tmp_path, '"prompt,response\nA,a\n')


def test_columns_without_a_name(tmp_path: Path) -> None:
    (found,) = rows(tmp_path, ",prompt,\n0,A,x\n")
    assert found.raw == {INDEX: 0, "prompt": "A", "column 3": "x"}


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    (found,) = rows(tmp_path, f"prompt,response\nA,{'b' * 200_000}\n")
    assert len(found.raw["response"]) == 200_000


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("response_a", ["1", "2"]),
        ("answer_B_c", ["1", "2"]),
        ("text1", ["1", "2"]),
        ("a", [1, 2]),
        ("a_b", [1, 2]),
        ("1", [1, 2]),
        ("response_id", [1, 2]),
    ],
)
def test_marks_of_one_letter_do_not_change_what_a_column_is(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    found = rows(tmp_path, f"prompt,{name}\nA,1\nB,2\n")
    assert [item.raw[name] for item in found] == values
