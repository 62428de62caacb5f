"""What in a Dockerfile only BuildKit builds (Docker's manual, "Dockerfile reference")."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

_OLD_FLAGS = {"COPY": {"from", "chown"}, "ADD": {"chown"}, "RUN": frozenset[str]()}
_PLATFORM = re.compile(r"\b(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT)\b")
_SYNTAX = re.compile(r"#\s*syntax\s*=\s*(\S+)", re.IGNORECASE)
_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*[a-zA-Z]+\s*=")
_USUAL_SYNTAX = re.compile(r"(?:\S+/)?docker/dockerfile(?::\S+)?")  # to the classic builder it is a comment
_HEREDOC = re.compile(r"(?:^|\s)\d*<<(-?)([\"']?)([A-Za-z_]\w*)\2(?=\s|$)")
_FLAG = re.compile(r"\s*--([a-z-]+)(?:=\S*)?")


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction: where it begins, its word, the rest in one line, and the line behind it (from 0)."""

    line: int
    word: str
    rest: str
    behind: int


def buildkit_needs(text: str, given: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """Line (1-based) and name of each construct that the classic builder refuses, or takes for something else; `given` are arguments of the build."""
    lines = text.splitlines()
    syntax = next(filter(None, map(_SYNTAX.match, _directives(lines))), None)
    if syntax and not _USUAL_SYNTAX.fullmatch(syntax[1]):
        yield lines.index(syntax.string) + 1, f"syntax {syntax[1]}"
    known = set(given)
    for step in _steps(lines):
        yield from ((step.line, what) for what in _needs(step, lines, known))
        if step.word == "ARG" and "=" in step.rest:
            known.add(step.rest.partition("=")[0])


def _needs(step: _Step, lines: Sequence[str], known: Collection[str]) -> Iterator[str]:
    if step.word in _OLD_FLAGS:
        yield from (f"{step.word} --{flag}" for flag in _flags(step.rest) if flag not in _OLD_FLAGS[step.word])
        if _heredocs(step, lines):
            yield f"{step.word} <<"
    if step.word == "FROM" or (step.word == "ARG" and "=" not in step.rest):
        yield from (f"{step.word} {name}" for name in dict.fromkeys(_PLATFORM.findall(step.rest)) if name not in known)


def _directives(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not _DIRECTIVE.match(line):
            return
        yield line


def _steps(lines: Sequence[str]) -> Iterator[_Step]:
    escape = next(filter(None, map(_ESCAPE.match, _directives(lines))), None)
    goes_on = re.compile(rf"{re.escape(escape[1] if escape else chr(92))}[ \t]*$")
    at = 0
    while at < len(lines):
        text, behind = _joined(lines, at, goes_on)
        word, _, rest = re.sub(r"^ONBUILD\s+", "", text, flags=re.IGNORECASE).partition(" ")
        step = _Step(at + 1, word.upper(), rest.strip(), behind)
        at = (_heredocs(step, lines) if step.word in _OLD_FLAGS else 0) or behind
        if text:
            yield step


def _joined(lines: Sequence[str], at: int, goes_on: re.Pattern[str]) -> tuple[str, int]:
    """The instruction that begins at a line, in one (empty: there is none), and the line behind it; comments within it are none of it."""
    parts: list[str] = []
    for index in range(at, len(lines)):
        line = lines[index].strip()
        if line and not line.startswith("#"):
            parts.append(goes_on.sub("", line))
        if not parts or (line and not line.startswith("#") and not goes_on.search(line)):
            return " ".join(parts), index + 1
    return " ".join(parts), len(lines)


def _flags(rest: str) -> Iterator[str]:
    while found := _FLAG.match(rest):
        yield found[1]
        rest = rest[found.end():]


def _heredocs(step: _Step, lines: Sequence[str]) -> int:
    """The line behind an instruction's here-documents; 0 where it has none, as where a word only looks like the begin of one."""
    at = step.behind
    found = [*_HEREDOC.finditer(step.rest)]
    for each in found:
        ends = [index for index in range(at, len(lines)) if (lines[index].lstrip("\t") if each[1] else lines[index]) == each[3]]
        if not ends:
            return 0
        at = ends[0] + 1
    return at if found else 0
