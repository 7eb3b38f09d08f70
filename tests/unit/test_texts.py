"""What Postgres can hold, and which texts are the same."""

import pytest

from rewardloop.texts import canonical, check_storable, folded, is_blank, storable


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


def test_one_text_may_be_written_in_several_ways() -> None:
    composed, decomposed = "caf\u00e9", " cafe\u0301\n"
    assert canonical(decomposed) == canonical(composed) == composed
    assert canonical("Tea") != canonical("tea")
    assert canonical("a  b") != canonical("a b")


@pytest.mark.parametrize("text", ["stra\u00dfe  \n1", " STRASSE 1", "Strasse\u00a01"])
def test_one_question_may_be_asked_in_more(text: str) -> None:
    assert folded(text) == "strasse 1"


def test_other_words_are_another_question() -> None:
    assert folded("How many bees?") != folded("How many bees")


@pytest.mark.parametrize("text", ["", " \n\u00a0", "\u200b", "\ufeff \u2060", "\u3164", "\ufe0f"])
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a\u200b", ".", "\u2764\ufe0f", "\u0301"])
def test_what_shows_something_is_not(text: str) -> None:
    assert not is_blank(text)
