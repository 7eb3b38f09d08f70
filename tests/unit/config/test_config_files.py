"""Config files: each key once, words are no numbers, and every fault has its line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rewardloop.config.files import KeyGivenTwice, parse_json, parse_mapping, read_mapping
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each


def refused(text: str, name: str = "run.yaml") -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_mapping(text, name)
    return caught.value.message


TWICE = [
    ("name: a\nseed: 1\nname: b\n", "name", 3, 1),
    ("training: {beta: 0.5}\n\ntraining: {num_epochs: 3}\n", "training", 3, 1),
    ("sampling:\n  top_p: 1\n  max_tokens: 8\n  top_p: 0.9\n", "top_p", 4, 2),
    ("sampling: {top_p: 1, max_tokens: 8, top_p: 0.9}\n", "top_p", 1, 1),
    ("{sampling: {top_p: 1,\n top_p: 0.9}}\n", "top_p", 2, 1),
    ('seed: 1\n"seed": 2\n', "seed", 2, 1),
    ("'seed': 1\n? seed\n: 2\n", "seed", 2, 1),
    ("a:\n- {b: 1}\n- b: 1\n  b: 1\n", "b", 4, 3),
    ("a: &a\n  b: 1\n  b: 1\nc: *a\n", "b", 3, 2),
    ("a: &a {b: 1}\nc: &c {d: 2}\ne:\n  <<: *a\n  <<: *c\n", "<<", 5, 4),
    ("yes: 1\nyes: 2\n", "yes", 2, 1),
    ("# a comment\n---\nseed: 1\nseed: 1\n", "seed", 4, 3),
]


@for_each("text, key, line, first", TWICE)
def test_a_key_that_is_given_twice_is_refused_with_both_lines(
    text: str, key: str, line: int, first: int
) -> None:
    assert refused(text) == (
        f"run.yaml:{line}: the key {key!r} is given twice, here and in line {first}; "
        "keep one of them"
    )


@pytest.mark.parametrize("name", ["run.json", "run.yaml", "run"])
def test_a_name_that_json_gives_twice_is_refused_with_both_lines(name: str) -> None:
    text = '{\n\t"sampling": {"top_p": 1},\n\t"seed": 1,\n\t"sampling": {}\n}'
    assert refused(text, name) == (
        f"{name}:4: the key 'sampling' is given twice, here and in line 2; keep one of them"
    )
    assert "the key 'b' is given twice" in refused('{"a": [{"b": 1, "b": 1}]}', name)


def test_a_name_spelt_with_escapes_is_the_same_name() -> None:
    assert "'seed' is given twice" in refused('{"seed": 1, "\\u0073eed": 2}', "run.json")


def test_every_key_that_is_given_twice_is_told() -> None:
    told = refused("a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n").splitlines()
    assert [line.split(": the key")[0] for line in told] == [
        *("run.yaml:2", "run.yaml:3", "run.yaml:4")
    ]
    told = refused("a: 1\n" * 14).splitlines()
    assert (len(told), told[-1]) == (11, "and 3 more")


def test_equal_keys_of_different_mappings_are_no_fault() -> None:
    text = "sampling: {top_p: 1}\njudging: {top_p: 1}\nlist: [{a: 1}, {a: 2}]\n"
    assert parse_mapping(text, "run.yaml") == {
        "sampling": {"top_p": 1},
        "judging": {"top_p": 1},
        "list": [{"a": 1}, {"a": 2}],
    }


def test_a_key_beside_a_merge_wins_as_yaml_says() -> None:
    text = "ift: &sft {batch_size: 8, dropout: 0.0}\nboth: {<<: *sft, batch_size: 4}\n"
    assert parse_mapping(text, "run.yaml")["both"] == {"batch_size": 4, "dropout": 0.0}


def test_of_two_merges_neither_wins() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {z: 1, y: 2}\nc: {<<: [*a, *b]}\n"
    assert refused(text).startswith("run.yaml:3: the key 'y' is merged twice, from line 1 and")
    nested = "a: &a {x: 1}\nb: &b {<<: *a}\nc: {<<: [*a, *b]}\n"
    assert "the key 'x' is merged twice" in refused(nested)
    apart = "a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: [*a, *b]}\n"
    assert parse_mapping(apart, "run.yaml")["c"] == {"x": 1, "y": 2}


@for_each(
    "word",
    [
        *("yes", "Yes", "no", "NO", "on", "off", "y", "n"),
        *("010", "-07", "00", "0o17", "0x10", "0b11", "1_000", "17:04", "1:30.5", "010.5"),
        *("2026-01-01", "2026-01-01 10:00:00", ".inf", "-.Inf", ".nan", "NaN", "inf"),
        *("1e", "e5", "1.2.3", "+", ".", "=", "five", "1 000", "½", "٣"),
    ],
)
def test_words_are_texts(word: str) -> None:
    assert parse_mapping(f"a: {word}\n", "run.yaml") == {"a": word}
    assert parse_mapping(f"a: [{word}]\n", "run.yaml") == {"a": [word]}


@for_each(
    "word, value",
    [
        *(("0", 0), ("-0", 0), ("7", 7), ("+7", 7), ("-12", -12), ("120000", 120000)),
        *(("1e-7", 1e-7), ("1E5", 1e5), ("-2e+3", -2000.0), ("1.0e-7", 1e-7), (".5", 0.5)),
        *((".5e3", 500.0), ("5.", 5.0), ("0.25", 0.25), ("-.5", -0.5)),
        *(("true", True), ("False", False), ("TRUE", True)),
        *(("~", None), ("null", None), ("", None)),
        *(("'5'", "5"), ('"true"', "true"), ("!!str 5", "5"), ("!!float 5", 5.0)),
    ],
)
def test_numbers_booleans_and_null_are_those_of_yaml_1_2(word: str, value: object) -> None:
    found = parse_mapping(f"a: {word}\n", "run.yaml")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~", "? [a]\n", "? {a: 1}\n"])
def test_a_key_is_a_text(key: str) -> None:
    assert refused(f"seed: 1\n{key}: 2\n").startswith("run.yaml:2: the key ")


@for_each(
    "text, told",
    [
        ("sampling: [", "run.yaml:1: '[' is not closed"),
        ("seed: 1\na: {b: 1,\nc: 2\n", "run.yaml:2: '{' is not closed"),
        ("a: [1, {b: 2}\nc: 3\n", "run.yaml:1: '[' is not closed"),
        ('seed: 1\nname: "abc\n', "run.yaml:2: the quotation mark is not closed"),
        ("a: b: c", "run.yaml:1: a ':' stands where no key can; "),
        ("a:\n\tb: 1", "run.yaml:2: a tab stands where only spaces may"),
        ("a: 1\n\tb: 1", "run.yaml:2: a tab stands where only spaces may"),
        ("a:\n  b: 1\n c: 2\n", "run.yaml:3: the indentation does not fit the lines above"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: a second document begins"),
        ("a: 1\n---\na: 1\n", "run.yaml:2: a second document begins"),
        ("a: *b\n", "run.yaml:1: no anchor of this alias stands above it"),
        ("a: &a [*a]\n", "run.yaml:1: this value holds itself by an alias"),
        ("a: 1\nb: 1e400\n", "run.yaml:2: 1e400 is too large for a number"),
        (f"a: {'9' * 5000}\n", "run.yaml:1: 9999"),
        ("a: 'x\0'\n", "run.yaml:1: the character U+0000 cannot stand in YAML"),
        ("a: 1\nb: !!int '010'\n", "run.yaml:2: '010' cannot have the tag !!int"),
        ("a: !!bool yes\n", "run.yaml:1: 'yes' cannot have the tag !!bool"),
        ("a: !!binary aGk=\n", "run.yaml:1: 'aGk=' cannot have the tag !!binary"),
        ("a: !!python/tuple [1]\n", "run.yaml:1: this value cannot have the tag !!python/tuple"),
        ("a: <<\n", "run.yaml:1: no valid YAML: '<<' stands where no key can"),
        ("a: @b\n", "run.yaml:1: no valid YAML: found character '@'"),
        ("", "run.yaml is empty"),
        ("# nothing\n---\n", "run.yaml is empty"),
        ("- a: 1\n", "run.yaml must hold a mapping of keys, as in `seed: 1`, not a list"),
        ("seed 1\n", "run.yaml must hold a mapping of keys, as in `seed: 1`, not the single"),
        ("[" * 500, "run.yaml is nested too deeply"),
        ('{"a": ' * 5_000, "run.yaml is nested too deeply"),
    ],
)
def test_a_broken_file_is_told_with_the_line_that_mends_it(text: str, told: str) -> None:
    assert refused(text).startswith(told)


@for_each(
    "text, told",
    [
        ('{"a": 1,\n}', "run.json:2: no valid JSON"),
        ("{'a': 1}", "run.json:1: no valid JSON"),
        ("seed: 1", "run.json:1: no valid JSON"),
        ('{"a": NaN}', "run.json: no valid JSON: NaN is no finite number"),
        ('{"a": -Infinity}', "run.json: no valid JSON: -Infinity is no finite number"),
        ('{"a": 1e400}', "run.json: no valid JSON: 1e400 is no finite number"),
        ("[]", "run.json must hold a mapping"),
        ("null", "run.json is empty"),
    ],
)
def test_broken_json_is_told_with_its_line(text: str, told: str) -> None:
    assert refused(text, "run.json").startswith(told)


def test_a_few_lines_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "aliases stand for more than 100,000 values" in refused("\n".join(lines))


def test_json_escapes_tabs_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_bytes(b'\xef\xbb\xbf{\n\t"name": "\\ud83d\\ude00",\r\n\t"seed": 3}')
    assert read_mapping(path) == {"name": "\N{GRINNING FACE}", "seed": 3}
    path.write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9\r\nseed: 3\r\n")
    assert read_mapping(path) == {"name": "café", "seed": 3}


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes("name: café".encode(encoding))
        with pytest.raises(InvalidInput, match="is not UTF-8 text"):
            read_mapping(path)


def test_parse_json_reads_what_json_reads_but_for_a_name_given_twice() -> None:
    assert parse_json(b'{"a": [{"b": 1}, {"b": 1.5}], "c": null}') == {
        "a": [{"b": 1}, {"b": 1.5}],
        "c": None,
    }
    for text in ('{"a": 1, "a": 1}', '[1, {"b": {"a": 1, "c": 2, "a": NaN}}]'):
        with pytest.raises(KeyGivenTwice, match="'a' is given twice"):
            parse_json(text)
    with pytest.raises(ValueError, match="Expecting"):
        parse_json("{")


def _readable(text: str) -> bool:
    """YAML's printable characters; the line breaks that YAML folds are left to JSON."""
    return not re.search("[^\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]", text)


NAMES = st.text(alphabet="abcx_-09 ~#:", min_size=1, max_size=6)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8).filter(_readable)
)
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(tree=TREES)
def test_json_means_the_same_to_both_parsers(tree: dict[str, Any]) -> None:
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    assert parse_mapping(text, "run.json") == tree
    assert parse_mapping(f"---\n{text}\n", "run.yaml") == tree


@settings(max_examples=40, deadline=None)
@given(tree=TREES, data=st.data())
def test_wherever_a_key_is_given_again_the_file_is_refused(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    """A key is given again with the same value, which would change nothing."""
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    lines = text.splitlines()
    scalars = [n for n, line in enumerate(lines) if re.fullmatch(r' +"[^"]+": [^\[{"]+', line)]
    assume(scalars)
    n = data.draw(st.sampled_from(scalars))
    lines.insert(n, lines[n].rstrip(",") + ",")
    for start, name in (("", "run.json"), ("---\n", "run.yaml")):
        told = refused(start + "\n".join(lines), name)
        first = n + 1 + start.count("\n")
        assert f"{name}:{first + 1}: the key " in told
        assert f"is given twice, here and in line {first};" in told
