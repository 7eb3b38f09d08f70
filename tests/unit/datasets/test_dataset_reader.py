"""`read_prompts` on files: endings, detection, and everything a file can have wrong.

Tests `rewardloop.datasets.reader`, `rewardloop.datasets.reading`,
`rewardloop.datasets.broken_lines`, `rewardloop.datasets.fitness`,
`rewardloop.datasets.fields`.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import Format, read_prompts
from rewardloop.errors import BrokenFile, InvalidInput

SHARED = Path(__file__).parents[3].parent / "shared" / "data"

SEED = {"id": "s1", "category": "writing", "prompt": "Write.", "response": "Done."}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
RANKED = {
    "id": "r1",
    "category": "writing",
    "prompt": "Write.",
    "responses": [{"rank": 1, "text": "Later."}, {"rank": 0, "text": "Done."}],
}


def tree(number: int, lang: str) -> dict[str, Any]:
    prompt = {"text": f"Hi {number}?", "role": "prompter", "lang": lang, "replies": []}
    return {"message_tree_id": f"t{number}", "tree_state": "ready_for_export", "prompt": prompt}


def jsonl(folder: Path, rows: Sequence[object], name: str = "prompts.jsonl") -> Path:
    """Rows that are texts are written as they are."""
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("raw", "format"),
    [
        (SEED, Format.SEED),
        ({"prompt": "A", "response": "B"}, Format.SEED),
        ({"prompt": "A", "category": "B"}, Format.SEED),
        (tree(1, "en"), Format.OASST),
        (ALPACA, Format.ALPACA),
        ({"conversations": [{"from": "human", "value": "A"}]}, Format.SHAREGPT),
        ({"messages": [{"role": "user", "content": "A"}]}, Format.TRL),
        ({"prompt": "A", "completion": "B"}, Format.TRL),
        ({"prompt": "A", "chosen": "B", "rejected": "C"}, Format.TRL),
        ({"prompt": "A"}, Format.TRL),
        ({"prompt": "A", "prompt_id": "p"}, Format.TRL),
        ({"instruction": "A", "instances": [{"input": "", "output": "B"}]}, Format.SELF_INSTRUCT),
        (RANKED, Format.RANKED),
        ({"prompt": "A", "responses": []}, Format.RANKED),
    ],
)
def test_the_format_is_recognised_and_can_be_named(
    tmp_path: Path, raw: dict[str, Any], format: Format
) -> None:
    path = jsonl(tmp_path, [raw])
    found = read_prompts(path)
    assert found.format is format
    assert len(found.prompts) == 1
    assert read_prompts(path, format) == found


def test_prompts_keep_the_files_order_and_lines_without_id_are_numbered(tmp_path: Path) -> None:
    rows = [ALPACA | {"instruction": f"Add {n}."} for n in range(3)]
    path = jsonl(tmp_path, [rows[0], "", rows[1] | {"id": "x"}, rows[2]])
    assert [p.source for p in read_prompts(path).prompts] == ["alpaca:#1", "alpaca:x", "alpaca:#4"]


def test_a_line_ends_at_a_newline_only(tmp_path: Path) -> None:
    words = "one\u2028two\u0085three"
    path = jsonl(tmp_path, [json.dumps({"prompt": words}, ensure_ascii=False)])
    assert read_prompts(path).prompts[0].messages[0]["content"] == words


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SEED).encode() + b"\r\n\r\n")
    assert read_prompts(path).prompts[0].source == "seed:s1"


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "prompts.JSONL.gz"
    path.write_bytes(gzip.compress(json.dumps(SEED).encode()))
    assert read_prompts(path).prompts[0].source == "seed:s1"


def test_an_array_is_numbered_by_element(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([ALPACA, "text", SEED], indent=1))
    with pytest.raises(BrokenFile, match="element 2: a text, not a JSON object") as caught:
        read_prompts(path, strict=True)
    assert caught.value.context == {"lines": [2]}
    found = read_prompts(path)
    assert [p.source for p in found.prompts] == ["alpaca:#1", "seed:s1"]


def test_other_languages_are_filtered_and_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [tree(1, "de"), tree(2, "en"), tree(3, "es")])
    english = read_prompts(path)
    assert [p.source for p in english.prompts] == ["oasst:t2"]
    assert (english.num_filtered, english.skipped) == (2, ())
    german = read_prompts(path, language="de")
    assert [p.source for p in german.prompts] == ["oasst:t1"]
    every = read_prompts(path, language=None)
    assert (len(every.prompts), every.num_filtered) == (3, 0)


def test_a_file_that_is_filtered_whole_is_not_empty(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, [tree(1, "de")]))
    assert (found.prompts, found.num_filtered) == ((), 1)


BROKEN = [
    SEED,
    '{"prompt": "A", "response": }',
    [1],
    {"prompt": 4, "response": "B"},
    ALPACA,
    {"response": "B"},
]


def test_every_broken_line_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path, BROKEN)
    with pytest.raises(BrokenFile) as caught:
        read_prompts(path, strict=True)
    assert caught.value.context == {"lines": [2, 3, 4, 6]}
    assert caught.value.message == (
        f"{path} has 4 broken lines; nothing was imported.\n"
        "  line 2: not valid JSON at column 29: Expecting value\n"
        "  line 3: an array, not a JSON object\n"
        '  line 4: "prompt" is a number, not a text\n'
        "  line 6: no format has these columns (response)\n"
        "Mend them, or import without --strict to leave them out."
    )


def test_odd_rows_are_left_out_and_told(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, BROKEN))
    assert len(found.prompts) == 2
    assert [item.line for item in found.skipped] == [2, 3, 4, 6]
    assert found.skipped[2].problem == '"prompt" is a number, not a text'
    assert found == read_prompts(jsonl(tmp_path, BROKEN), skip_broken=True)


def test_only_the_first_problems_are_spelled_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [SEED, *["{"] * 7])
    with pytest.raises(BrokenFile) as caught:
        read_prompts(path, skip_broken=False)
    assert caught.value.context["lines"] == [2, 3, 4, 5, 6, 7, 8]
    assert "line 6:" in caught.value.message
    assert "line 7:" not in caught.value.message
    assert "  and 2 more\n" in caught.value.message


def test_broken_lines_before_the_first_object_do_not_hide_the_format(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, ["{", ALPACA]))
    assert (found.format, len(found.prompts), len(found.skipped)) == (Format.ALPACA, 1, 1)


@pytest.mark.parametrize("strict", [False, True])
def test_a_file_without_a_good_line_is_refused_in_any_case(tmp_path: Path, strict: bool) -> None:
    path = jsonl(tmp_path, [ALPACA])
    with pytest.raises(BrokenFile, match=r"1 broken line and no good one, read as seed;") as caught:
        read_prompts(path, Format.SEED, strict=strict)
    assert "it is of the format alpaca, not seed" in caught.value.message


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ["]", "["])
    with pytest.raises(BrokenFile, match=r"no good one; nothing was imported"):
        read_prompts(path)


@pytest.mark.parametrize("line", ["1" * 5000, "[" * 100_000], ids=["number", "nesting"])
def test_absurd_json_is_a_broken_line(tmp_path: Path, line: str) -> None:
    found = read_prompts(jsonl(tmp_path, [SEED, line]))
    assert found.skipped[0].problem.startswith("JSON that cannot be read: ")


def test_rows_of_an_unknown_shape_are_told_by_their_columns(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, [SEED, {"utterance": "A", "reply": "B"}, {}]))
    told = found.account.left_out["unknown_shape"]
    assert (told.count, told.first_line) == (2, 2)
    assert told.detail == "no format has these columns (reply, utterance)"
    many = {f"key_{n:02}": n for n in range(20)}
    with pytest.raises(BrokenFile, match=r"key_10, key_11, \.\.\.\)"):
        read_prompts(jsonl(tmp_path, [many]))


def test_of_a_ranked_record_the_best_response_is_the_reference(tmp_path: Path) -> None:
    (found,) = read_prompts(jsonl(tmp_path, [RANKED])).prompts
    assert found.messages == ({"role": "user", "content": "Write."},)
    assert (found.reference, found.source) == ("Done.", "ranked:r1")


def test_a_ranked_record_whose_prompt_is_left_out_is_filtered(tmp_path: Path) -> None:
    rows = [RANKED, RANKED | {"prompt": " "}, RANKED | {"prompt": "x" * 20_001}]
    found = read_prompts(jsonl(tmp_path, rows))
    assert (len(found.prompts), found.num_filtered) == (1, 2)


def test_a_response_beside_responses_is_left_out(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, [SEED, RANKED | {"response": "B"}]))
    assert len(found.prompts) == 1
    assert '"response"' in found.account.left_out["column_not_read"].detail


def test_an_unknown_column_is_told(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, [{"prompt": "A", "remark": "B"}]))
    assert len(found.prompts) == 1
    assert found.account.columns_unknown == {"remark": 1}


def test_a_named_format_only_restricts(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, [SEED, ALPACA]), Format.SEED)
    assert [prompt.source for prompt in found.prompts] == ["seed:s1"]
    told = found.account.left_out["other_format"]
    assert told.detail == (
        "by its columns (input, instruction, output) it is of the format alpaca, not seed"
    )
    assert read_prompts(jsonl(tmp_path, [SEED]), "seed").format is Format.SEED


def test_a_named_format_with_another_formats_answer(tmp_path: Path) -> None:
    """The row may be a seed by its prompt, but its conversation is TRL's."""
    row = {"prompt": "Hi", "category": "c", "messages": [{"role": "user", "content": "Hi"}]}
    found = read_prompts(jsonl(tmp_path, [SEED, row]), Format.SEED)
    assert len(found.prompts) == 1
    assert "the row is of the format trl" in found.account.left_out["other_format"].detail


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \r\n\n"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("a.json", b""),
        ("a.json", b"[]"),
    ],
)
def test_an_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"is empty\. Give a file"):
        read_prompts(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"prompt": "Grüße"}'.encode("latin-1"),
        '{"prompt": "A"}'.encode("utf-16"),
        b"PAR1\x00\x01\x02",
        gzip.compress(b'{"prompt": "A"}', mtime=0),
    ],
)
def test_what_is_not_utf8_names_its_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(SEED).encode() + b"\n" + content)
    with pytest.raises(InvalidInput, match=r"is not UTF-8 text: line 2 is binary"):
        read_prompts(path)


@pytest.mark.parametrize(
    "content", [b'{"prompt": "A"}', gzip.compress(b'{"prompt": "A"}', mtime=0)[:-9]]
)
def test_a_gzip_file_that_is_none_or_is_cut(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is not a whole gzip file"):
        read_prompts(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no\.jsonl does not exist\. Check the path\."):
        read_prompts(tmp_path / "no.jsonl")


def test_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder.jsonl"
    path.mkdir()
    with pytest.raises(InvalidInput, match=r"is a folder without data files .* Name one file\."):
        read_prompts(path)


def test_a_file_that_the_system_refuses(tmp_path: Path) -> None:
    path = tmp_path / "loop.jsonl"
    path.symlink_to(path)
    with pytest.raises(InvalidInput, match=r"cannot be read: Too many levels of symbolic links"):
        read_prompts(path)


def test_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a\.xlsx has an unknown ending\. Convert it"):
        read_prompts(tmp_path / "a.xlsx")


def test_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [SEED, ALPACA], "a.json")
    assert len(read_prompts(path).prompts) == 2


def test_broken_json_in_a_json_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ["[", "", '{"prompt": }]'], "a.json")
    with pytest.raises(BrokenFile, match=r"not valid JSON at line 3, column 12") as caught:
        read_prompts(path)
    assert caught.value.context == {"lines": [3]}


def test_an_object_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [SEED], "a.json")
    assert [p.source for p in read_prompts(path).prompts] == ["seed:s1"]


def test_absurd_json_in_a_json_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ["[" * 100_000], "a.json")
    with pytest.raises(InvalidInput, match="holds JSON that cannot be read"):
        read_prompts(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_real_files() -> None:
    trees = read_prompts(SHARED / "oasst_en_70_trees.jsonl")
    assert (trees.format, len(trees.prompts), trees.num_filtered) == (Format.OASST, 70, 0)
    assert all(prompt.reference for prompt in trees.prompts)
    tasks = read_prompts(SHARED / "self_instruct_seed_tasks.jsonl")
    assert (tasks.format, len(tasks.prompts)) == (Format.SELF_INSTRUCT, 175)
    questions = read_prompts(SHARED / "mt_bench_questions.jsonl")
    assert (questions.format, len(questions.prompts)) == (Format.MT_BENCH, 80)
