"""Model texts on their way into Postgres."""


def storable(text: str) -> str:
    """The text with NULs spelled out: Postgres holds any other character, and a model may
    write one."""
    return text.replace("\x00", "\N{SYMBOL FOR NULL}")
