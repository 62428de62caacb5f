"""Histories: one invocation or completion a line, in the order of time (docs/history-format.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.json import Decoder

from envctl.errors import Problem, SpecError
from envctl.model.history import Fits, History, Operation, Outcome
from envctl.spec.lines import Wrong, collector_paused, few, parsed

NEMESIS = "nemesis"  # Jepsen's name for what hurts the system; its lines stand between those of clients
EXAMPLE = '{"process": 0, "type": "invoke", "f": "read", "key": "x", "value": null}'

_NONE = type(None)
_PROCESSES, _KEYS, _NAMES = frozenset((int, str)), frozenset((int, str, _NONE)), frozenset((str, _NONE))
_NUMBERS = frozenset((int, _NONE))


class Line(Struct, gc=False):
    """One line; the fields are those of the format.  What a tool writes beside them is passed over."""

    process: int | str
    type: Literal["invoke", "ok", "fail", "info"]
    f: str | None = None
    key: int | str | None = None
    value: Any = None
    index: int | None = None
    time: int | None = None
    error: Any = None


class StrictLine(Line, forbid_unknown_fields=True, gc=False):
    """The same, as long as no other field has been seen: it may be one of these, misspelt."""


_ALIKE = 0.8
FIELDS = Line.__struct_fields__
TYPES = ("invoke", "ok", "fail", "info")


def load_history(file: Path, fits: Fits | None = None) -> History:
    """All operations of a file; their places are lines.

    Raises SpecError with every problem (those that `fits` finds, too), and when the file can't be read.
    """
    reader = _Reader(file)
    with collector_paused():
        try:
            with file.open("rb") as lines:
                reader.read(lines)
        except OSError as error:
            raise SpecError([Problem(file, 0, "", f"can't be read: {error.strerror}")]) from error
        operations = reader.finish()
        if fits is not None:
            reader.problems += [Problem(file, *wrong) for each in operations if (wrong := fits(each))]
    if reader.problems:
        raise SpecError(few(sorted(reader.problems, key=lambda problem: problem.line)))
    return History(operations)


class _Reader:
    """Pairs completions with invocations, line by line."""

    def __init__(self, file: Path) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._operations: list[Operation | None] = []  # None: not completed yet
        self._open: dict[int | str, tuple[int, int, Line]] = {}  # process → place among the operations, line, invocation
        self._index = -1

    def _problem(self, line: int, field: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self._file, line, field, message, hint))

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes all lines in."""
        decode = Decoder[Line](StrictLine).decode
        for number, text in enumerate(lines, 1):
            try:
                line = decode(text)
            except (ValueError, RecursionError) as error:
                wrong = list(_wrong_in(text, str(error)))
                self.problems += [Problem(self._file, number, *each) for each in wrong]
                if wrong or not _is_said_by_a_client(text):
                    continue
                decode = Decoder(Line).decode
                line = decode(text)
            if line.index is not None:
                self._rise(number, line.index)
            if line.type == "invoke":
                self._invoke(number, line)
            elif line.type != "info" or line.process != NEMESIS:
                self._complete(number, line, line.type)

    def _rise(self, number: int, index: int) -> None:
        if index <= self._index:
            self._problem(number, "index", f"{index} does not come after {self._index}", "the order of the lines is the order in time")
        self._index = index

    def _invoke(self, number: int, line: Line) -> None:
        process = line.process
        if process in self._open:
            _, before, begun = self._open[process]
            self._problem(number, "process", f"{process!r} has not completed its {begun.f!r} of line {before}", "one operation at a time: give each client a process of its own")
        if line.f is None:
            self._problem(number, "f", "is missing", "say what was asked for, such as read or write")
        self._open[process] = (len(self._operations), number, line)
        self._operations.append(None)

    def _complete(self, number: int, line: Line, outcome: Outcome) -> None:
        if line.process not in self._open:
            self._problem(number, "process", f"{line.process!r} has nothing to complete: no invocation is open")
            return
        at, before, begun = self._open.pop(line.process)
        for field, found, asked in (("f", line.f, begun.f), ("key", line.key, begun.key)):
            if found is not None and found != asked:
                self._problem(number, field, f"found {found!r}, where line {before} asked for {asked!r}")
        self._operations[at] = _operation(before, begun, outcome, number, line.value)

    def finish(self) -> list[Operation]:
        """All operations; what was never completed is unknown."""
        for at, line, begun in self._open.values():
            self._operations[at] = _operation(line, begun, "info", None, None)
        if not self._operations and not self.problems:
            self._problem(0, "", "holds no operation", f"write one invocation or completion a line: {EXAMPLE}")
        return [each for each in self._operations if each is not None]


def _operation(number: int, begun: Line, outcome: Outcome, ended: int | None, told: Any) -> Operation:
    index, ended = number if begun.index is None else begun.index, None if outcome == "info" else ended
    return Operation(index, begun.process, begun.f or "", begun.key, begun.value, told, outcome, number, ended, begun.time)


def _wrong_in(text: bytes, reason: str) -> Iterable[Wrong]:
    """What is wrong with a line that can't be decoded, which is nothing for a blank one and for what the nemesis tells."""
    if not text.strip():
        return
    obj, wrong = parsed(text, EXAMPLE)
    if wrong:
        yield from wrong
    elif not _is_the_nemesis(obj):
        found = list(_wrong_fields(obj))
        yield from found or ([] if set(obj) - set(FIELDS) else [("", reason, "")])


def _is_said_by_a_client(text: bytes) -> bool:
    return bool(text.strip()) and not _is_the_nemesis(json.loads(text))


def _is_misspelt(field: str, name: str) -> bool:
    return sorted(field) == sorted(name) or SequenceMatcher(None, field, name).ratio() >= _ALIKE


def _is_the_nemesis(obj: dict[str, Any]) -> bool:
    return obj.get("process") == NEMESIS and obj.get("type") == "info"


def _wrong_fields(obj: dict[str, Any]) -> Iterator[Wrong]:
    for field in obj:
        if field not in FIELDS and (meant := next((name for name in FIELDS if _is_misspelt(field, name)), "")):
            yield field, "unknown field", f"did you mean {meant!r}?"
    if obj.get("type") not in TYPES:
        yield "type", f"found {obj.get('type')!r}, allowed: {', '.join(TYPES)}", ""
    for field, types, words in (("process", _PROCESSES, "a number or a name"), ("key", _KEYS, "a number, a name or null"), ("f", _NAMES, "a name"),
                                ("index", _NUMBERS, "a whole number"), ("time", _NUMBERS, "nanoseconds, a whole number")):
        if type(obj.get(field)) not in types:
            yield field, f"found {obj.get(field)!r}, allowed: {words}", ""
