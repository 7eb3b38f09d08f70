"""Reads a config file, YAML or JSON, as plain data.

Invariants: a key that is given twice is refused, with both lines. A value is a number, a
boolean or null only where YAML 1.2 and YAML 1.1 both read it so, or where it can mean nothing
else (`1e-7`): `yes`, `010`, `0x10`, `1_000`, `17:04` and dates stay texts. A key is a text. What
is wrong is told with the file's name and line.

Knows nothing of the keys that there are.
"""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from rewardloop.config.yaml_nodes import Fault, Loader, faults
from rewardloop.errors import InvalidInput

MAX_FAULTS_TOLD = 10


class KeyGivenTwice(ValueError):
    """An object of a JSON text has a name twice."""


def parse_json(text: str | bytes, **how: Any) -> Any:
    """JSON whose objects have each name once. (RFC 8259 leaves open which of two equal names
    counts; Python takes the last without a word.)

    Raises:
        KeyGivenTwice: naming the key.
        ValueError: the text is no JSON.
    """
    return json.loads(text, object_pairs_hook=_each_once, **how)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise KeyGivenTwice(f"the key {twice!r} is given twice; keep one of them")
    return found


def _finite(number: str) -> float:
    """What `json` hands over: a number, or one of its own words NaN, Infinity, -Infinity."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is no finite number")
    return float(number)


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys of a file.

    Raises:
        InvalidInput: the file cannot be read, or is no mapping that gives each key once.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: {error.reason}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """The keys of a text; `name` stands in the messages for where it is from.

    Raises:
        InvalidInput: the text is no mapping that gives each key once.
    """
    try:
        data = _parsed(text, name)
    except RecursionError as error:
        raise InvalidInput(f"{name} is nested too deeply for a config") from error
    if data is None:
        raise InvalidInput(f"{name} is empty; write the keys that you want, or leave the file out")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else f"the single value {data!r:.40}"
        raise InvalidInput(f"{name} must hold a mapping of keys, as in `seed: 1`, not {kind}")
    return data


def _parsed(text: str, name: str) -> Any:
    """JSON first where the text looks like it: PyYAML cannot read its tabs and `\\ud83d\\ude00`."""
    is_json = name.endswith(".json")
    if is_json or text.lstrip().startswith("{"):
        try:
            return parse_json(text, parse_float=_finite, parse_constant=_finite)
        except KeyGivenTwice as error:
            raise InvalidInput(_with_lines(text, name) or f"{name}: {error}") from error
        except ValueError as error:
            if is_json:
                raise InvalidInput(_explain_json(error, name)) from error
    return _yaml(text, name)


def _with_lines(text: str, name: str) -> str | None:
    """What is wrong with a JSON text, found as in YAML; None where that finds nothing.

    A tab in JSON is nothing but white space, since texts must escape theirs.
    """
    try:
        node = Loader(text.replace("\t", " ")).get_single_node()
    except yaml.YAMLError:
        return None
    return _told(faults(node), name) if node else None


def _explain_json(error: ValueError, name: str) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{name}:{error.lineno}: no valid JSON: {error.msg}, at column {error.colno}"
    return f"{name}: no valid JSON: {error}"


def _yaml(text: str, name: str) -> Any:
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if wrong := _told(faults(node), name):
            raise InvalidInput(wrong)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise InvalidInput(_explain_yaml(error, text, name)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidInput(
            f"{name}:{line}: the character U+{ord(text[error.position]):04X} cannot stand in YAML"
        ) from error


def _told(found: Iterator[Fault], name: str) -> str | None:
    told = [f"{name}:{line}: {what}" for line, what in sorted(found)]
    more = len(told) - MAX_FAULTS_TOLD
    return "\n".join(told[:MAX_FAULTS_TOLD] + ([f"and {more} more"] if more > 0 else [])) or None


_PROBLEMS = (
    ("'\\t'", "a tab stands where only spaces may; indent with spaces"),
    (
        "mapping values are not allowed",
        "a ':' stands where no key can; quote a value that holds ': ', and see the line above",
    ),
    ("found another document", "a second document begins; a config is one document"),
    ("could not find expected ':'", "a key without a ':'"),
    ("did not find expected key", "the indentation does not fit the lines above"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("tag:yaml.org,2002:merge", "no valid YAML: '<<' stands where no key can"),
    ("undefined alias", "no anchor of this alias stands above it"),
)


def _explain_yaml(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    """PyYAML's message in plain words, with the line that is to be mended."""
    problem, context = error.problem or "", error.context or ""
    if "quoted scalar" in context and error.context_mark is not None:
        return f"{name}:{error.context_mark.line + 1}: the quotation mark is not closed"
    if "flow" in context and (opened := _unclosed(text)) is not None:
        return f"{name}:{opened.line + 1}: '{text[opened.index]}' is not closed"
    mark = error.problem_mark or error.context_mark
    told = next((told for part, told in _PROBLEMS if part in problem), f"no valid YAML: {problem}")
    return f"{name}:{mark.line + 1}: {told}" if mark else f"{name}: {told}"


def _unclosed(text: str) -> yaml.Mark | None:
    """Where the last bracket is that nothing closes."""
    opened: list[yaml.Mark] = []
    with suppress(yaml.YAMLError):
        for token in yaml.scan(text):
            if isinstance(token, (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)):
                opened.append(token.start_mark)
            elif (
                isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)) and opened
            ):
                opened.pop()
    return opened[-1] if opened else None
