"""Takes secrets out of text before it is logged, stored as an error, or answered.

Owns the forms in which a secret is recognised without knowing it (credentials in a URL, a bearer
token, an API key of ours, `password=`), and the secrets that this process was given. Invariant:
what is taken out is replaced by `***`, so that a reader sees that something stood there. Knows
neither logging nor HTTP.
"""

import re
from urllib.parse import unquote, urlsplit

KEY_PREFIX = "rlk_"
"""Every API key begins so: a scanner of repositories and logs can find one that leaked."""
MASK = "***"
_SHORTEST = 6
"""A shorter secret could be part of an ordinary word, which would then be masked everywhere."""

_FORMS = (
    # Everything up to the last @ before the path; `user:password` is how a message says the form.
    (re.compile(r"(://)(?!user:password@)[^\s/?#'\"]+@"), rf"\1{MASK}@"),
    (re.compile(r"(bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(password[\"']?\s*[=:]\s*[\"']?)[^\s&'\",;]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"\b{KEY_PREFIX}[\w-]{{20,}}"), f"{KEY_PREFIX}{MASK}"),
)
_known: set[str] = set()


def keep_out(*secrets: str) -> None:
    """Mask these from now on; of a URL, its password as it is written and as it is meant."""
    for secret in secrets:
        _known.update(part for part in _parts(secret) if len(part) >= _SHORTEST)


def _parts(secret: str) -> set[str]:
    if "://" not in secret:
        return {secret}
    try:
        password = urlsplit(secret).password or ""
    except ValueError:
        return {secret}
    return {secret, password, unquote(password)}


def redacted(text: str) -> str:
    """The text with `***` in place of each secret."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for form, mask in _FORMS:
        text = form.sub(mask, text)
    return text
