"""The nonce of a call, and a text in which it is marked."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.method.nonce import MARK, NUM_DIGITS, marked, nonce_of
from tests.unit.cases import for_each
from tests.unit.growth import is_linear

NONCE = "7f3a"
M = MARK * 4


def test_a_key_has_one_nonce() -> None:
    assert nonce_of("a key") == nonce_of("a key")
    nonces = {nonce_of(f"key {number}") for number in range(40)}
    assert len(nonces) > 35  # two of 40 are seldom the same among 65,536


def test_a_nonce_is_the_start_of_a_hash_that_names_its_purpose() -> None:
    """A judge that is restarted, or is of a later version, asks again for the same."""
    assert nonce_of("a key") == "db02"
    assert nonce_of("") == "2c46"


def test_without_a_key_each_call_has_another() -> None:
    assert len({nonce_of(None) for _ in range(40)}) > 35


@given(st.none() | st.text())
def test_a_nonce_has_four_hexadecimal_digits(key: str | None) -> None:
    assert NUM_DIGITS == 4
    assert re.fullmatch(r"[0-9a-f]{4}", nonce_of(key))


@for_each(
    "written, expected",
    [
        ("Score 7f3a: 4", f"Score {M}: 4"),
        ("7f3a", M),
        ("SCORE 7F3A: 4, 7f3A", f"SCORE {M}: 4, {M}"),
        ('{"score_7f3a": 4}', f'{{"score_{M}": 4}}'),
        ("(7f3a)[7f3a]#7f3a-7f3a.7f3a", f"({M})[{M}]#{M}-{M}.{M}"),
        ("7f3a\n7f3a", f"{M}\n{M}"),
        # Not a word of its own.
        ("7f3ab 17f3a x7f3a 7f3a4 7f3a7f3a", "7f3ab 17f3a x7f3a 7f3a4 7f3a7f3a"),
        ("7f3 7f 3a 7f3b", "7f3 7f 3a 7f3b"),
        # What stood there as a mark is none.
        (f"Score {M}: 5", "Score     : 5"),
        (f"Score {MARK}7f3a: 4", f"Score  {M}: 4"),
        # Letters of other alphabets do not hide it: judges write "评分7f3a".
        ("\u8bc4\u52067f3a\uff1a4", f"\u8bc4\u5206{M}\uff1a4"),
        ("", ""),
    ],
)
def test_the_nonce_is_marked_where_it_is_a_word(written: str, expected: str) -> None:
    assert marked(written, NONCE) == expected


@given(st.text(alphabet=f"7f3aFA {MARK}\n:_\u017f") | st.text())
def test_every_character_stands_where_it_stood(written: str) -> None:
    found = marked(written, NONCE)
    assert len(found) == len(written)
    for was, now in zip(written, found, strict=True):
        assert now in (was, MARK) or (was, now) == (MARK, " ")
        assert now != MARK or was.lower() in "7f3a"


@given(st.text(alphabet="0123456789abcdef", min_size=4, max_size=4))
def test_every_nonce_is_marked_and_no_other(nonce: str) -> None:
    assert marked(f"Score {nonce.upper()}: 4", nonce) == f"Score {M}: 4"
    other = nonce[:-1] + ("0" if nonce[-1] != "0" else "1")
    assert MARK not in marked(f"Score {other}: 4", nonce)


@pytest.mark.parametrize("piece", ["7f3a", "7f3a ", MARK, "7f3", "7 "])
def test_marking_takes_linear_time(piece: str) -> None:
    assert is_linear(lambda size: marked(piece * size, NONCE), 5_000)
