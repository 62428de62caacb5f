"""YAML with the line of every field, read strictly: no duplicate keys, no words that turn into booleans or dates.

Scalars follow the YAML 1.2 core rules (`on` and `yes` are words, `12:30` is text), so that `on: healed(x)` means what it says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from envctl.errors import Problem, SpecError

Location = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the root."""

_MERGE = "tag:yaml.org,2002:merge"
MAX_DEPTH = 40
MAX_VALUES = 200_000


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to declare resolvers


class _KubernetesLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars as Kubernetes reads them: YAML 1.1 of the Go library, without its dates and sexagesimals."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    bool_values: Mapping[str, bool] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


_CORE = (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", list("tf")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),  # 12e45 may be a commit
)
_KUBERNETES = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:y|n|yes|no|true|false|on|off|Y|N|Yes|No|True|False|On|Off|YES|NO|TRUE|FALSE|ON|OFF)$", list("yntfoYNTFO")),
    ("int", r"^[-+]?(?:0b[01]+|0o?[0-7]*|0x[0-9a-fA-F]+|[1-9][0-9_]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("merge", r"^<<$", ["<"]),
)
for _loader, _rules in ((_Loader, _CORE), (_KubernetesLoader, _KUBERNETES)):
    for _tag, _pattern, _first in _rules:
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def dotted(at: Location) -> str:
    """`("faults", 2, "at")` as `faults[2].at`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that was likely meant; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest match, or everything that is known."""
    names = sorted(known)
    close = nearest(name, names)
    return f"did you mean {close!r}?" if close else f"known: {', '.join(names) or 'none'}"


@dataclass(slots=True)
class Document:
    """One file: its values, where each stands, and the problems found so far."""

    file: Path
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    texts: dict[Location, str] = field(default_factory=dict)  # scalars as they are written
    problems: list[Problem] = field(default_factory=list)

    def line(self, *at: str | int) -> int:
        """The line of a value, or of the nearest thing around it."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def problem(self, at: Location, message: str, hint: str = "") -> None:
        """Notes a problem with the value at a location."""
        self.problems.append(Problem(self.file, self.line(*at), dotted(at), message, hint))

    def raise_problems(self) -> None:
        """Raises SpecError with everything found, in the order of the file."""
        if self.problems:
            raise SpecError(sorted(self.problems, key=lambda problem: (str(problem.file), problem.line)))


def read(file: Path, text: str | None = None) -> Document:
    """Parses one YAML file (or, in its name, a text).  Raises SpecError when it is no YAML at all; notes duplicate keys."""
    document = Document(file)
    with parsing(file, text) as (loader, node):
        document.data = _value(document, loader, node, ()) if node is not None else None
    return document


def read_many(file: Path) -> Document:
    """Parses a file of many documents as Kubernetes does; `data` is their list.  Raises SpecError as `read` does.

    Of a CustomResourceDefinition, which may be thousands of lines, only the head is kept.
    """
    document = Document(file, [])
    with _loading(file, None, _KubernetesLoader) as loader:
        while loader.check_node():
            node = loader.get_node()
            if isinstance(node, yaml.MappingNode) and any(value.value == "CustomResourceDefinition" for key, value in node.value if key.value == "kind"):
                node.value = [pair for pair in node.value if pair[0].value in ("apiVersion", "kind", "metadata")]
            document.data.append(_value(document, loader, node, (len(document.data),)))
    return document


@contextmanager
def parsing(file: Path, text: str | None = None) -> Iterator[tuple[Any, yaml.Node | None]]:
    """The loader of a YAML file and its root node, by the rules above.  What goes wrong meanwhile is raised as SpecError."""
    with _loading(file, text, _Loader) as loader:
        yield loader, loader.get_single_node()


@contextmanager
def _loading(file: Path, text: str | None, kind: Any) -> Iterator[Any]:
    try:
        yield kind(file.read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise SpecError([Problem(file, 0, "", f"can't be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise SpecError([Problem(file, 0, "", "is not UTF-8 text")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}"
        raise SpecError([Problem(file, mark.line + 1 if mark else 0, "", message)]) from error
    except yaml.YAMLError as error:
        raise SpecError([Problem(file, 0, "", f"is not valid YAML: {error}")]) from error
    except (RecursionError, ValueError) as error:
        raise SpecError([Problem(file, 0, "", f"is not valid YAML: {error}")]) from error


def _value(document: Document, loader: Any, node: yaml.Node, at: Location) -> Any:
    document.lines.setdefault(at, node.start_mark.line + 1)
    if len(at) > MAX_DEPTH or len(document.lines) > MAX_VALUES:
        raise ValueError("it is nested too deeply or repeats itself")
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, loader, node, at)
    if isinstance(node, yaml.SequenceNode):
        return [_value(document, loader, item, (*at, index)) for index, item in enumerate(node.value)]
    document.texts[at] = node.value
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in ("str", "null", "bool", "int", "float"):
        document.problem(at, f"the tag {node.tag!r} is not allowed", "write a plain value")
        return None
    try:
        return loader.construct_object(node)
    except (ValueError, LookupError):  # of an explicit tag
        document.problem(at, f"{node.value!r} is no {kind}", "write a plain value")
        return None


def _mapping(document: Document, loader: Any, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
    found: dict[str, Any] = {}
    merged: list[yaml.Node] = []
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(document.file, line, dotted(at), "a field's name must be a plain word"))
            continue
        key = key_node.value
        here = (*at, key)
        if key_node.tag == _MERGE:
            merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
        elif key in found:
            message = f"{key!r} is there twice, first in line {document.lines[here]}"
            document.problems.append(Problem(document.file, line, dotted(here), message, "remove one of them"))
        else:
            document.lines[here] = line
            found[key] = _value(document, loader, value_node, here)
    for each in merged:
        if not isinstance(each, yaml.MappingNode):
            document.problems.append(Problem(document.file, each.start_mark.line + 1, dotted(at), "only a mapping can be merged by `<<`"))
            continue
        rest = [pair for pair in each.value if not (isinstance(pair[0], yaml.ScalarNode) and pair[0].value in found)]
        found |= _mapping(document, loader, yaml.MappingNode(each.tag, rest, each.start_mark, each.end_mark), at)
    return found
