"""What Postgres can hold."""

import pytest

from rewardloop.texts import check_storable, storable


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain \N{GRINNING FACE}\n", "plain \N{GRINNING FACE}\n"),
        ("a\x00b", "a\N{SYMBOL FOR NULL}b"),
        ("a\ud83db\udfff", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_models_text_is_stored_visibly(text: str, stored: str) -> None:
    assert storable(text) == stored
    assert check_storable(stored) == stored


@pytest.mark.parametrize(("text", "told"), [("a\x00b", "NUL"), ("a\ud83d", r"\\ud83d")])
def test_what_cannot_be_stored_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_storable(text)
