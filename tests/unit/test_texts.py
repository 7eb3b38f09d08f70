"""What Postgres can hold, what terminals may be shown, and which texts are the same."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.texts import canonical, check_storable, folded, is_blank, spelled_out, storable


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines, ü, 日本, 👩\u200d🚀", None),
        (
            "\x1b[31mred\x1b]8;;http://evil\x1b\\link\a",
            r"\x1b[31mred\x1b]8;;http://evil\x1b\link\x07",
        ),
        ("over\rwritten\b\v\f\x7f\0", r"over\x0dwritten\x08\x0b\x0c\x7f\x00"),
        ("\x9b31m\x9d\x85", r"\x9b31m\x9d\x85"),
        ("\u202egnp.exe\u2066\u061c\u200f", r"\u202egnp.exe\u2066\u061c\u200f"),
        ("a\u2028b\ufeff\xad", r"a\u2028b\ufeff\xad"),
        ("half \ud83d, tag \U000e0041", r"half \ud83d, tag \U000e0041"),
    ],
)
def test_what_would_steer_a_terminal_is_spelled_out(text: str, shown: str | None) -> None:
    assert spelled_out(text) == (text if shown is None else shown)


@given(st.text())
def test_what_is_spelled_out_holds_nothing_that_steers(text: str) -> None:
    shown = spelled_out(text)
    steering = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert steering <= set("\n\t\u200c\u200d")
    shown.encode()
    assert spelled_out(shown) == shown


@given(st.text())
def test_json_for_a_terminal_holds_the_same_data(text: str) -> None:
    for ascii_alone in (True, False):
        shown = spelled_out(json.dumps({text: [text]}, ensure_ascii=ascii_alone), json_escapes=True)
        assert json.loads(shown) == {text: [text]}
        assert spelled_out(shown) == shown
