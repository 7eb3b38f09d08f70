"""The JSON object with which a judge ends.

Tests `rewardloop.method.final_object`.
"""

import pytest

from rewardloop.method.final_object import final_object
from rewardloop.method.own_words import own_words
from rewardloop.method.score_form import FORM
from tests.unit.cases import for_each


def found(written: str) -> list[tuple[float, int]]:
    return [(f.value, f.end) for f in final_object(own_words(written), len(written), FORM)]


@for_each(
    "written",
    [
        '{"score": 4}',
        'It is clear.\n{"score": 4}\n',
        'It is clear. {"score": 4}',
        '{"why": {"facts": "right"}, "Total score": "4/5"}',
        '{\n  "reason": "clear",\n  "score": 4\n}',
        '```json\n{"score": 4}\n```',
        'It is clear.\n~~~\n{"score": 4.0}\n~~~\n',
        '```\nprint(1)\n```\nSo:\n```json\n{"score": 4}\n```',
        '{"draft": 1}\n{"score": 4}',
        'The response says that snow is white.\n{"score": 4}',
        '{"a": 1}\n{"b": 1}\n{"c": 1}\n{"d": 1}\n{"score": 4}',
    ],
)
def test_the_object_at_the_end_is_read(written: str) -> None:
    assert found(written) == [(4.0, len(written.rstrip()))]


@for_each(
    "written",
    [
        "",
        "}",
        "```\n}\n```",
        "No object.\n```",
        '{"score": 4} and more',
        '{"points of view": 4}',
        '[{"score": 4}]',
        '{"score": true}',
        '{"score": "four"}',
        '{"score": NaN}',
        '{"score": 4',
        'It says {"score": 4}',
        'The response ends with the line:\n{"score": 4}',
        '> {"score": 4}',
        'Text\n{"score": 4}\n```',
        "{" * 50_000 + "}",
    ],
)
def test_what_is_no_verdict(written: str) -> None:
    assert found(written) == []


@pytest.mark.parametrize(("num_blanks", "is_read"), [(39_900, True), (40_100, False)])
def test_a_very_long_object_is_not_looked_for(num_blanks: int, is_read: bool) -> None:
    """Its last bracket is: it begins no object of its own."""
    written = '{"why": {}, "score": 4,' + " " * num_blanks + '"x": 1}'
    assert found(written) == ([(4.0, len(written))] if is_read else [])
