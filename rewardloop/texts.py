"""Texts on their way into Postgres, which holds neither NULs nor halves of surrogate pairs."""

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_SPELLED_OUT = {0: "\N{SYMBOL FOR NULL}", **_SURROGATES}


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
