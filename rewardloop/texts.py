"""What Postgres can hold of a text, and when two texts count as the same.

Postgres holds neither NULs nor halves of surrogate pairs. Nothing here changes a text that
is stored or trained on, but for `storable`.
"""

import unicodedata

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_SPELLED_OUT = {0: "\N{SYMBOL FOR NULL}", **_SURROGATES}

_INVISIBLE = "\ufe0e\ufe0f\u115f\u1160\u2800\u3164\uffa0"
"""Show nothing alone, though Unicode calls them marks, letters and symbols."""


def storable(text: str) -> str:
    """A model's text with what cannot be stored spelled out: a model may write anything."""
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


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: white space and characters without a picture alone."""
    return all(c.isspace() or c in _INVISIBLE or unicodedata.category(c) == "Cf" for c in text)


def canonical(text: str) -> str:
    """What makes two texts one and the same: Unicode's composed form, without outer blanks."""
    return unicodedata.normalize("NFC", text).strip()


def folded(text: str) -> str:
    """What makes two texts the same question: besides, letter case and inner blanks are gone."""
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())
