"""What Postgres can hold of a text, what a terminal may be shown of it, and when two texts count
as the same.

Postgres holds neither NULs nor halves of surrogate pairs. Nothing here changes a text that
is stored or trained on, but for `storable`.
"""

import json
import re
import unicodedata

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_SPELLED_OUT = {0: "\N{SYMBOL FOR NULL}", **_SURROGATES}

_INVISIBLE = "\ufe0e\ufe0f\u115f\u1160\u2800\u3164\uffa0"
"""Show nothing alone, though Unicode calls them marks, letters and symbols."""


def storable(text: str) -> str:
    """A model's text with what cannot be stored spelled out: a model may write anything."""
    if text.isascii() and "\0" not in text:
        return text
    return text.translate(_SPELLED_OUT)


def check_storable(text: str) -> str:
    """Lets pass, unchanged, what people write and Postgres can hold.

    Raises:
        ValueError: the text holds a NUL or half a surrogate pair.
    """
    if "\0" in text:
        raise ValueError("a text holds a NUL character, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise ValueError(f"a text holds half a surrogate pair (\\u{code:04x})") from None
    return text


_STEERING = re.compile("[^\t\n -~\\u00a0-\\u00ac\\u00ae-\\u05ff]")
"""Characters that may need spelling out; the usual ones are told apart fast."""
_JOINERS = "\u200c\u200d"
"""Show nothing, and make letters of Persian and pictures of several people."""


def spelled_out(text: str, *, json_escapes: bool = False) -> str:
    """The text as a terminal may show it: what would steer it (controls, escapes, carriage
    returns) or hide or reorder what is shown (bidi marks, tags, unpaired surrogates) is written
    as in `\\x1b` or `\\u202e`. Line feeds and tabs stay. `json_escapes` are those of JSON."""

    def spelled(found: re.Match[str]) -> str:
        character = found[0]
        if character in _JOINERS or unicodedata.category(character) not in _UNSHOWN:
            return character
        return _json_escape(character) if json_escapes else _escape(ord(character))

    return _STEERING.sub(spelled, text)


_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(code: int) -> str:
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _json_escape(character: str) -> str:
    escaped = json.dumps(character)[1:-1]
    return f"\\u{ord(character):04x}" if escaped == character else escaped


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: white space and characters without a picture alone."""
    return all(c.isspace() or c in _INVISIBLE or unicodedata.category(c) == "Cf" for c in text)


def canonical(text: str) -> str:
    """What makes two texts one and the same: Unicode's composed form, without outer blanks."""
    return unicodedata.normalize("NFC", text).strip()


def folded(text: str) -> str:
    """What makes two texts the same question: besides, letter case and inner blanks are gone."""
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())
