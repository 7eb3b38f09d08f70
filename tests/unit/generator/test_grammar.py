"""What an engine may be held to, and how much of it."""

import json
from typing import Any

import pytest

from rewardloop.errors import NotServed, TooLarge
from rewardloop.method import comparison, rubric
from services.generator.grammar import MAX_DEPTH, require_bounded
from tests.unit.cases import for_each

PERSON = {
    "$defs": {"name": {"type": "string", "maxLength": 40}},
    "type": "object",
    "properties": {"first": {"$ref": "#/$defs/name"}, "last": {"$ref": "#/$defs/name"}},
    "required": ["first"],
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@for_each(
    "asked",
    [
        {"regex": rubric.constrained_pattern("7f3a")},
        {"regex": rubric.constrained_pattern(None)},
        {"regex": comparison.constrained_pattern("7f3a")},
        {"regex": r"\{100000\}[0-9]{2,}"},
        {"choice": ["yes", "no"]},
        {"json": PERSON},
        {"json": json.dumps(PERSON)},
        {"json": {}},
        {"json": nested(MAX_DEPTH - 2)},
        {"json_object": True},
        {"regex": "a", "json": None, "grammar": None},
    ],
)
def test_bounded_grammars_pass(asked: dict[str, Any]) -> None:
    require_bounded({"structured_outputs": asked})


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_a_response_format_of_these_kinds_passes(kind: str) -> None:
    require_bounded({"response_format": {"type": kind}})


def test_a_response_format_may_hold_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    require_bounded({"response_format": form})
    require_bounded({"response_format": {"type": "text"}, "structured_outputs": {"regex": "a"}})


SELF = {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}
DOUBLING = {
    "$defs": {
        "d0": {"type": "string"},
        **{
            f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}, {"$ref": f"#/$defs/d{n - 1}"}]}
            for n in range(1, 20)
        },
    },
    "$ref": "#/$defs/d19",
}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "exactly one"),
        ([], "must be an object"),
        ({"regex": "a", "choice": ["a"]}, "exactly one"),
        ({"grammar": ""}, "structured_outputs.grammar is not served here"),
        ({"grammar": 'root ::= "a"'}, "structured_outputs.grammar is not served here"),
        ({"structural_tag": "{}"}, "structured_outputs.structural_tag is not served here"),
        ({"regex": "a", "whitespace_pattern": "x"}, "whitespace_pattern is not served here"),
        ({"regex": ""}, "not empty"),
        ({"regex": 7}, "regular expression"),
        ({"regex": "("}, "is no regular expression"),
        ({"regex": "a{10001}"}, "multiply to over 10000"),
        ({"regex": "((a{100}){100}){2}"}, "multiply to over 10000"),
        ({"regex": "(a{1,}){99999,}"}, "multiply"),
        ({"choice": []}, "1 to 256 texts"),
        ({"choice": ["a"] * 257}, "1 to 256 texts"),
        ({"choice": ["a", ""]}, "none of them empty"),
        ({"choice": "a"}, "1 to 256 texts"),
        ({"json": ""}, "is no JSON"),
        ({"json": "[]"}, "must be an object"),
        ({"json": {"$ref": "#"}}, "refers to itself"),
        ({"json": '{"$ref": "#"}'}, "refers to itself"),
        ({"json": {"properties": {"a": {"$ref": "#"}}}}, "refers to itself"),
        ({"json": SELF}, "refers to itself"),
        ({"json": DOUBLING}, "more than 2000 parts"),
        ({"json": {"$ref": "#/$defs/nothing"}}, "leads nowhere"),
        ({"json": {"$ref": "http://example.org/schema"}}, "leads nowhere"),
        ({"json": nested(MAX_DEPTH + 1)}, "nested deeper"),
        ({"json": {"type": "string", "maxLength": 10**9}}, "maxLength must be a number"),
        ({"json": {"items": {"minItems": -1}}}, "minItems must be a number"),
        ({"json": {"type": "string", "pattern": "("}}, "pattern is no regular expression"),
        ({"json_object": 1}, "must be true"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_could_end_an_engine_is_refused(asked: Any, told: str) -> None:
    with pytest.raises(NotServed) as refused:
        require_bounded({"structured_outputs": asked})
    assert told in refused.value.message


@pytest.mark.parametrize(
    "form",
    [
        {"type": "structural_tag", "format": {}},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": ["text"]},
        {},
        "text",
    ],
)
def test_so_is_another_response_format(form: Any) -> None:
    with pytest.raises(NotServed):
        require_bounded({"response_format": form})


def test_two_ways_to_say_a_form_exclude_each_other() -> None:
    both = {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}
    with pytest.raises(NotServed, match="exclude each other"):
        require_bounded(both)


def test_a_long_grammar_is_too_large() -> None:
    with pytest.raises(TooLarge, match="structured_outputs exceeds 4000 characters"):
        require_bounded({"structured_outputs": {"regex": "x" * 4000}})
