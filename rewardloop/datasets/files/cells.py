"""What the text of a cell in a CSV or TSV file means. Pure.

A cell has no type of its own, so a column's cells decide together: a column
holds numbers, booleans, or lists and objects only where every filled cell of it
does; otherwise it holds texts. Columns that are named as texts (`prompt`,
`response_0`) stay texts whatever they hold, so that the answer "42" is no
number; only turns of a conversation are read from them. Lists and objects may be JSON, or
Python's or numpy's way of printing them, as pandas and `datasets` write them. An
empty cell is null, as is pandas' `nan`.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator
from enum import StrEnum

_TEXT_WORDS = frozenset(
    {"prompt", "completion", "response", "chosen", "rejected", "instruction", "input", "output"}
    | {"text", "question", "answer", "query", "content", "system", "context", "ref", "reference"}
    | {"post", "summary", "message", "title", "body", "critique", "feedback", "rubric"}
    | {"name", "category"}
)
_NO_TEXT_WORDS = frozenset({"score", "num", "n", "is", "has", "len", "rating", "rank"})
_NULLS = frozenset({"nan", "NaN", "<NA>", "NaT"})
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_MAYBE_NUMPY = re.compile(r"['\"]\s+['\"]")
"""Two texts side by side, which Python would read as one."""
_BOOLEANS = {word: word[0] in "tT" for word in ("True", "False", "true", "false", "TRUE", "FALSE")}
_TURN_KEYS = (
    {"role", "content"},
    {"from", "value"},
    {"role", "text"},
    {"type", "text"},
    {"role", "value"},
    {"id", "full_text"},
)


class CellKind(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRUCTURE = "structure"
    """Lists and objects."""


def is_null(cell: str) -> bool:
    """Whether the cell is empty, or what pandas prints for a missing value."""
    return not cell or cell in _NULLS


def kind_of_column(name: str, cells: Iterable[str]) -> CellKind:
    """What all these cells hold; a column without a filled cell holds texts."""
    kinds = set[CellKind]()
    for cell in cells:
        if not is_null(cell):
            kinds.add(kind_of_cell(name, cell))
            if CellKind.TEXT in kinds:
                break
    return common_kind(kinds)


def common_kind(kinds: set[CellKind]) -> CellKind:
    return kinds.copy().pop() if len(kinds) == 1 else CellKind.TEXT


def kind_of_cell(name: str, cell: str) -> CellKind:
    """What a filled cell could be, by itself and its column's name."""
    if cell[0] in "[{":
        value = structure(cell)
        fits = value is not None and (not _is_text(name, lists=True) or _holds_turns(value))
        return CellKind.STRUCTURE if fits else CellKind.TEXT
    if _is_text(name):
        return CellKind.TEXT
    if cell in _BOOLEANS:
        return CellKind.BOOLEAN
    return CellKind.NUMBER if _NUMBER.fullmatch(cell) else CellKind.TEXT


def value_of(cell: str, kind: CellKind) -> object:
    """The cell's value in a column of this kind."""
    if is_null(cell):
        return None
    match kind:
        case CellKind.NUMBER:
            return json.loads(cell)
        case CellKind.BOOLEAN:
            return _BOOLEANS[cell]
        case CellKind.STRUCTURE:
            return structure(cell)
        case _:
            turns = structure(cell) if cell[0] in "[{" else None
            return turns if turns is not None and _holds_turns(turns) else cell


def structure(cell: str) -> object:
    """The list or object that the cell holds, or None."""
    for read in (json.loads, _plain_literal, _literal):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
        if isinstance(value, list | dict) and _is_json(value):
            return value
    return None


def _is_text(name: str, *, lists: bool = False) -> bool:
    """Whether a column of this name holds texts; `reference` may be a list of them."""
    words = re.findall(r"[a-z]+", name.lower())
    while len(words) > 1 and len(words[-1]) == 1:
        words.pop()
    if not words or words[0] in _NO_TEXT_WORDS or (lists and words[-1] == "reference"):
        return False
    return words[-1] in _TEXT_WORDS


def _holds_turns(value: object) -> bool:
    if isinstance(value, dict):
        return any(keys <= value.keys() for keys in _TURN_KEYS) or _holds_turns(
            value.get("messages")
        )
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and any(keys <= value.keys() for keys in _TURN_KEYS)


def _is_json(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(k, str) and _is_json(v) for k, v in value.items())
        case list():
            return all(map(_is_json, value))
        case _:
            return value is None or isinstance(value, str | int | float | bool)


def _plain_literal(cell: str) -> object:
    """Quick, and only for cells that numpy cannot have printed."""
    if _MAYBE_NUMPY.search(cell):
        raise ValueError("may lack commas")
    return ast.literal_eval(cell)


def _literal(cell: str) -> object:
    return ast.literal_eval(" ".join(_as_python(cell)))


def _as_python(cell: str) -> Iterator[str]:
    """The cell's tokens, with the commas that numpy leaves out between elements.

    numpy prints ["a", "b"] as ['a' 'b'], which Python would read as ["ab"]. Within a list
    pandas prints array([...], dtype=object).
    """
    ended, arrays = False, 0
    tokens = _tokens(cell)
    for kind, words in tokens:
        if words in ("array", "dtype"):
            arrays += 1 if words == "array" else 0
            while words not in ("(", ")"):
                _, words = next(tokens)
            arrays -= words == ")"
            continue
        if words == ")" and arrays:
            arrays -= 1
            continue
        starts = kind in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME) or words in "[{-"
        if ended and starts:
            yield ","
        ended = (kind in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)) or words in "]}"
        yield "None" if words == "nan" else words


def _tokens(cell: str) -> Iterator[tuple[int, str]]:
    passed = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(cell).readline):
        if token.type == tokenize.ERRORTOKEN:
            raise ValueError("no Python")
        if token.type not in passed:
            yield token.type, token.string
