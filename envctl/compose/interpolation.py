"""`$VAR` and `${VAR…}` in Compose files, and the files in which variables are set.

Compose Specification, "Interpolation" and "env_file"; variables of the process come before those of `.env`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from envctl.compose.values import Value
from envctl.errors import Problem, SpecError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]|")


class InterpolationError(ValueError):
    """A reference that is malformed, or that asks for a variable which is not set."""


def expand(text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda _: None) -> str:
    """The text with every reference replaced.  `unset` hears of variables that are empty because nobody set them."""
    found, end = _expand(text, 0, variables, unset, nested=False)
    assert end == len(text)
    return found


def _expand(text: str, at: int, variables: Mapping[str, str], unset: Callable[[str], None], *, nested: bool) -> tuple[str, int]:
    """The text from `at` on (of a default, up to its closing brace), and where it ends."""
    parts: list[str] = []
    open_braces = 0
    while at < len(text):
        if nested and text[at] == "}" and not open_braces:
            return "".join(parts), at
        if text[at] != "$":
            open_braces += {"{": 1, "}": -1}.get(text[at], 0)
            parts.append(text[at])
            at += 1
        elif text.startswith("$$", at):
            parts.append("$")
            at += 2
        else:
            part, at = _reference(text, at + 1, variables, unset)
            parts.append(part)
    if nested:
        raise InterpolationError(f"a closing brace is missing in {text!r}")
    return "".join(parts), at


def _reference(text: str, at: int, variables: Mapping[str, str], unset: Callable[[str], None]) -> tuple[str, int]:
    """What a reference behind its dollar sign stands for, and where it ends."""
    braced = text.startswith("{", at)
    name = _NAME.match(text, at + braced)
    if name is None:
        raise InterpolationError(f"{text!r} has a dollar sign without a variable's name behind it; a literal one is written $$")
    if not braced:
        return _value(name[0], variables, unset), name.end()
    operator = _OPERATOR.match(text, name.end())
    assert operator
    if not operator[0]:
        if not text.startswith("}", name.end()):
            raise InterpolationError(f"{text!r} has a malformed reference to {name[0]}")
        return _value(name[0], variables, unset), name.end() + 1
    quiet: list[str] = []
    other, end = _expand(text, operator.end(), variables, quiet.append, nested=True)
    value = variables.get(name[0])
    there = value is not None and not (operator[0].startswith(":") and not value)
    if operator[0].endswith("+"):
        return other if there else "", end + 1
    if there:
        return value or "", end + 1
    if operator[0].endswith("?"):
        raise InterpolationError(f"the variable {name[0]} is required{f': {other}' if other else ''}")
    for each in quiet:
        unset(each)
    return other, end + 1


def _value(name: str, variables: Mapping[str, str], unset: Callable[[str], None]) -> str:
    if name not in variables:
        unset(name)
    return variables.get(name, "")


def interpolate(value: Value, variables: Mapping[str, str], unset: Callable[[Value, str], None]) -> None:
    """Replaces the references in all texts of a value.  Raises SpecError with every one that can't be."""
    problems: list[Problem] = []
    for scalar in value.scalars():
        if isinstance(scalar.data, str) and "$" in scalar.data:
            try:
                scalar.data = expand(scalar.data, variables, lambda name, scalar=scalar: unset(scalar, name))  # type: ignore[misc]
            except InterpolationError as error:
                hint = "set it in the environment or in .env" if "required" in str(error) else ""
                problems.append(Problem(scalar.file, scalar.line, "", str(error), hint))
    if problems:
        raise SpecError(problems)


_ASSIGNMENT = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[\w.\-\[\]]+)[ \t]*(?:(?:=|:[ \t])[ \t]*
        (?:(?:'(?P<single>(?:\\.|[^'\\])*)'|"(?P<double>(?:\\.|[^"\\])*)")(?=[\s\#]|\Z)|(?P<bare>(?!['"])[^\n]*?(?=[ \t]+\#|[ \t]*(?:\n|\Z))))
    )?[ \t]*(?:\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_EMPTY = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"\\(?:0(?P<octal>[0-7]{1,3})|(?P<other>.))", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "$": "$$"}


def variables_of(file: Path, known: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """The variables that a file in the form of `.env` sets; its references are to `known` and to those above them.

    `raw`: everything behind the equals sign is the value.  Raises SpecError with the line that can't be read.
    """
    text = _text_of(file).removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if empty := _EMPTY.match(text, at):
            at = max(empty.end(), at + 1)
            continue
        line, end = text.count("\n", 0, at) + 1, (text.find("\n", at) + 1) or len(text)
        match = None if raw else _ASSIGNMENT.match(text, at)
        if raw:
            name, _, value = text[at:end].rstrip("\n").partition("=")
            found[name.strip()] = value
        elif match is None:
            raise SpecError([Problem(file, line, "", f"{text[at:end].strip()!r} sets no variable", "write NAME=value, and close what is quoted")])
        else:
            end = match.end()
            _assign(file, line, match, found, known)
        at = end
    return found


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError([Problem(file, 0, "", f"can't be read: {reason}")]) from error


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape["octal"], 8)) if escape["octal"] else _ESCAPES.get(escape["other"], escape[0])


def _assign(file: Path, line: int, match: re.Match[str], found: dict[str, str], known: Mapping[str, str]) -> None:
    name, single, double, bare = match["name"], match["single"], match["double"], match["bare"]
    if single is None and double is None and bare is None:  # only a name: it is passed on
        if name in known:
            found[name] = known[name]
        return
    if single is not None:
        found[name] = single.replace("\\'", "'")
        return
    text = bare if double is None else _ESCAPE.sub(_unescaped, double)
    try:
        found[name] = expand("" if text is None or text.startswith("#") else text, {**found, **known})
    except InterpolationError as error:
        raise SpecError([Problem(file, line, name, str(error))]) from error
