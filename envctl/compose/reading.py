"""Compose files → values: anchors, merge keys, and the tags `!reset` and `!override`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from envctl.compose.values import Value
from envctl.errors import Problem, SpecError
from envctl.spec.document import MAX_DEPTH, MAX_VALUES, parsing

_TAGS = ("!reset", "!override")
_PLAIN = ("str", "null", "bool", "int", "float", "seq", "map")


@dataclass(slots=True)
class _Reading:
    file: Path
    base: Path
    loader: Any
    count: int = 0

    def problem(self, node: yaml.Node, message: str, hint: str = "") -> SpecError:
        return SpecError([Problem(self.file, node.start_mark.line + 1, "", message, hint)])


def read(file: Path, base: Path, text: str | None = None) -> Value:
    """The values of a file; relative paths in it count from `base`.  Raises SpecError for what is no YAML or no mapping."""
    with parsing(file, text) as (loader, node):
        if not isinstance(node, yaml.MappingNode):
            raise SpecError([Problem(file, 1, "", "it is not a mapping", "a Compose file has a mapping `services:`")])
        return _value(_Reading(file, base, loader), node, 0)


def _value(reading: _Reading, node: yaml.Node, depth: int) -> Value:
    reading.count += 1
    if depth > MAX_DEPTH or reading.count > MAX_VALUES:
        raise ValueError("it is nested too deeply or repeats itself")
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag not in (*_TAGS, *_PLAIN):
        raise reading.problem(node, f"the tag {node.tag!r} is not known", "Compose knows !reset and !override")
    value = Value(None, reading.file, node.start_mark.line + 1, reading.base, tag if tag in _TAGS else "")
    if tag == "!reset":
        return value
    if isinstance(node, yaml.MappingNode):
        value.data = _mapping(reading, node, depth)
    elif isinstance(node, yaml.SequenceNode):
        value.data = [_value(reading, item, depth + 1) for item in node.value]
    elif tag != "null":
        value.data = node.value
    return value


def _mapping(reading: _Reading, node: yaml.MappingNode, depth: int) -> dict[str, Value]:
    own: dict[str, Value] = {}
    merged: dict[str, Value] = {}
    for key, below in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise reading.problem(key, "a field's name must be a plain word")
        if key.value == "<<" and not key.style:
            for each in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                if not isinstance(each, yaml.MappingNode):
                    raise reading.problem(each, "only a mapping can be merged by `<<`")
                merged = {**_mapping(reading, each, depth + 1), **merged}  # the first one wins
        elif key.value in own:
            raise reading.problem(key, f"{key.value!r} is there twice, first in line {own[key.value].line}", "remove one of them")
        else:
            own[key.value] = replace(_value(reading, below, depth + 1), line=key.start_mark.line + 1)
    return {**merged, **own}
