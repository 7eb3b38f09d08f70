"""The word by which a judge's verdict is known to be the judge's own. Pure text.

Each call to a judge carries a nonce that its verdict must name (`Score 7f3a: 4`). A response
was written before the nonce was drawn, so nothing that a judge quotes, repeats or obeys can
name it. Invariant: in a marked text every character stands where it stood.
"""

import hashlib
import re
import secrets

NUM_DIGITS = 4
"""Hexadecimal: a response that guesses is right once in 65,536 tries."""

MARK = "\ue000"
"""Stands for each character of the nonce in a marked text; in no text that a model writes."""


def nonce_of(key: str | None) -> str:
    """The nonce of a call: the same for one request key, so that it can be sent again; any
    without a key.

    A key names rows that a response's author has not seen, and that are not there when
    the response is written.
    """
    if key is None:
        return secrets.token_hex(NUM_DIGITS // 2)
    return hashlib.sha256(f"nonce of {key}".encode()).hexdigest()[:NUM_DIGITS]


def marked(written: str, nonce: str) -> str:
    """The text with MARK in the place of every character of the nonce, wherever it is a word."""
    assert _WORD.fullmatch(nonce), "a nonce is letters and digits"
    wanted, mark = nonce.lower(), MARK * len(nonce)

    def as_mark(match: re.Match[str]) -> str:
        return mark if match[0].lower() == wanted else match[0]

    return _WORD.sub(as_mark, written.replace(MARK, " "))


_WORD = re.compile("[A-Za-z0-9]+")
"""One pattern for all nonces: to compile one for each takes longer than to read a judgement."""
