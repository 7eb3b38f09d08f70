"""The YAML that configs are written in, and what is wrong with a document of it.

YAML 1.2's core schema without octal and hexadecimal numbers, leading zeros, `.inf` and `.nan`;
merges (`<<`) as in YAML 1.1. PyYAML alone reads YAML 1.1, where `yes` is true, `010` is eight,
`17:04` is 1,024 and `1e-7` is a text.
"""

import math
import re
from collections.abc import Iterator

import yaml

Fault = tuple[int, str]
"""Line, from 1, and what is wrong there."""

MAX_NODES = 100_000
"""Of a document with its aliases written out: a few lines of aliases can stand for billions."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_INTEGER = r"(0|[1-9][0-9]*)"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of this module."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in PyYAML: the class's own, filled below


for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": rf"[-+]?{_INTEGER}",
    "float": rf"[-+]?(\.[0-9]+|{_INTEGER}(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
    "merge": "<<",
}.items():
    Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), None)


def faults(root: yaml.Node) -> Iterator[Fault]:
    """Keys that are given twice or are no texts, values that are not of their tag, aliases that
    go in circles or stand for too much."""
    sizes: dict[int, int] = {}
    yield from _walk(root, sizes)
    if sizes.get(id(root), 0) > MAX_NODES:
        yield 1, f"written out, the aliases stand for more than {MAX_NODES:,} values"


def _walk(node: yaml.Node, sizes: dict[int, int]) -> Iterator[Fault]:
    """Each node once; `sizes` has a 0 for a node that is being walked."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            yield _line(node), "this value holds itself by an alias"
        return
    sizes[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        yield from _key_faults(node)
        children = [part for pair in node.value for part in pair if part.tag != _MERGE]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    yield from _tag_faults(node)
    for child in children:
        yield from _walk(child, sizes)
    sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _tag_faults(node: yaml.Node) -> Iterator[Fault]:
    """A tag is the one that the value has without it, or `!!str`, or `!!float` of an integer.
    A number is not too large for a float."""
    tag = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.ScalarNode):
        plain: str = Loader("").resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        fits = {"str", plain.removeprefix(_TAG)} | ({"float"} if plain == _TAG + "int" else set())
    else:
        fits = {"map"} if isinstance(node, yaml.MappingNode) else {"seq"}
    if tag not in fits:
        value = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this value"
        yield _line(node), f"{value:.80} cannot have the tag {node.tag.replace(_TAG, '!!')}"
    elif tag in ("int", "float") and not math.isfinite(float(node.value)):
        yield _line(node), f"{node.value:.80} is too large for a number"


def _key_faults(node: yaml.MappingNode) -> Iterator[Fault]:
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TAG + "str", _MERGE):
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
            yield _line(key), f"the key {shown} is no text; put it in quotes or correct it"
            continue
        if key.value in lines:
            yield (
                _line(key),
                f"the key {key.value!r} is given twice, here and in line {lines[key.value]}; "
                "keep one of them",
            )
        lines.setdefault(key.value, _line(key))
        if key.tag == _MERGE:
            yield from _merge_faults(_line(key), value)


def _merge_faults(line: int, merged: yaml.Node) -> Iterator[Fault]:
    """Of two merged mappings the first would win; a key beside `<<` wins on purpose."""
    lines: dict[str, int] = {}
    parts = merged.value if isinstance(merged, yaml.SequenceNode) else []
    for part in parts:
        for key, at in _keys(part, frozenset()):
            if key in lines:
                yield (
                    line,
                    f"the key {key!r} is merged twice, from line {lines[key]} and from line {at}; "
                    "write the one that you want beside '<<'",
                )
            lines.setdefault(key, at)


def _keys(node: yaml.Node, over: frozenset[int]) -> Iterator[tuple[str, int]]:
    """Keys of a mapping, those that it merges itself among them, and their lines."""
    if id(node) in over:
        return
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _keys(part, over | {id(node)})
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == _MERGE:
                yield from _keys(value, over | {id(node)})
            elif isinstance(key, yaml.ScalarNode):
                yield key.value, _line(key)
