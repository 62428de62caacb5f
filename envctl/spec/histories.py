"""Histories: one invocation or completion a line, in the order of time (docs/history-format.md)."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from envctl.errors import Problem, SpecError
from envctl.model.history import Fits, History, Operation, Outcome
from envctl.spec.document import did_you_mean
from envctl.spec.lines import Wrong, few, parsed

FIELDS = frozenset(("index", "process", "type", "f", "key", "value", "time", "error"))
TYPES = ("invoke", "ok", "fail", "info")
NEMESIS = "nemesis"  # Jepsen's name for what hurts the system; its lines stand between those of clients
EXAMPLE = '{"process": 0, "type": "invoke", "f": "read", "key": "x", "value": null}'

_Object = dict[str, Any]
_NONE = type(None)
_PROCESSES, _KEYS, _INDICES, _TIMES = (frozenset(types) for types in ((int, str), (int, str, _NONE), (int, _NONE), (int, float, _NONE)))


def load_history(file: Path, fits: Fits | None = None) -> History:
    """All operations of a file; their places are lines.

    Raises SpecError with every problem (those that `fits` finds, too), and when the file can't be read.
    """
    reader = _Reader(file)
    with _uncollected():
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


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles, which would go through millions of new objects that live on, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


class _Reader:
    """Pairs completions with invocations, line by line."""

    def __init__(self, file: Path) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._operations: list[Operation | None] = []  # None: not completed yet
        self._open: dict[int | str, tuple[int, int, _Object]] = {}  # process → place among the operations, line, invocation
        self._gone: dict[int | str, int] = {}  # process → line that left its operation unknown
        self._index = -1

    def _problem(self, line: int, field: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self._file, line, field, message, hint))

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes all lines in."""
        for number, text in enumerate(lines, 1):
            obj, wrong = parsed(text, EXAMPLE, _DECODER)
            if obj is not None and _right(obj):
                self._take(number, obj)
            elif text.strip() and not (obj and obj.get("process") == NEMESIS and obj.get("type") == "info"):
                self.problems += [Problem(self._file, number, *each) for each in wrong or _wrong_in(obj)]

    def _take(self, number: int, obj: _Object) -> None:
        index = obj.get("index")
        if index is not None:
            if index <= self._index:
                self._problem(number, "index", f"{index} does not come after {self._index}", "the order of the lines is the order in time")
            self._index = index
        if obj["type"] == "invoke":
            self._invoke(number, obj)
        elif obj["process"] != NEMESIS or obj["type"] != "info":
            self._complete(number, obj)

    def _invoke(self, number: int, obj: _Object) -> None:
        process = obj["process"]
        if process in self._open:
            _, line, begun = self._open[process]
            self._problem(number, "process", f"{process!r} has not completed its {begun['f']!r} of line {line}", "one operation at a time: give each client a process of its own")
        elif process in self._gone:
            self._problem(number, "process", f"{process!r} has an operation of unknown outcome since line {self._gone[process]}, which may still be at work",
                          "a client that goes on after that is a new process")
        self._open[process] = (len(self._operations), number, obj)
        self._operations.append(None)

    def _complete(self, number: int, obj: _Object) -> None:
        process = obj["process"]
        if process not in self._open:
            self._problem(number, "process", f"{process!r} has nothing to complete: no invocation is open")
            return
        at, line, begun = self._open.pop(process)
        for field in ("f", "key"):
            if obj.get(field, begun.get(field)) != begun.get(field):
                self._problem(number, field, f"found {obj[field]!r}, where line {line} asked for {begun.get(field)!r}")
        if obj["type"] == "info":
            self._gone[process] = number
        self._operations[at] = _operation(line, begun, obj["type"], number, obj.get("value"))

    def finish(self) -> list[Operation]:
        """All operations; what was never completed is unknown."""
        for at, line, begun in self._open.values():
            self._operations[at] = _operation(line, begun, "info", None, None)
        if not self._operations and not self.problems:
            self._problem(0, "", "holds no operation", f"write one invocation or completion a line: {EXAMPLE}")
        return [each for each in self._operations if each is not None]


def _operation(line: int, begun: _Object, outcome: Outcome, ended: int | None, told: Any) -> Operation:
    index, ended = begun.get("index"), None if outcome == "info" else ended
    return Operation(line if index is None else index, begun["process"], begun["f"], begun.get("key"), begun.get("value"), told, outcome,
                     line, ended, begun.get("time"))


def _right(obj: _Object) -> bool:
    """Whether `_wrong_in` finds nothing; fast, because nearly all lines of millions are right."""
    get = obj.get
    return (get("type") in TYPES and type(get("process")) in _PROCESSES and obj.keys() <= FIELDS and type(get("key")) in _KEYS
            and type(get("index")) in _INDICES and type(get("time")) in _TIMES and type(get("f", "" if obj["type"] != "invoke" else None)) is str)


def _wrong_in(obj: _Object) -> Iterator[Wrong]:
    for field in obj.keys() - FIELDS:
        yield field, "unknown field", did_you_mean(field, FIELDS)
    if obj.get("type") not in TYPES:
        yield "type", f"found {obj.get('type')!r}, allowed: {', '.join(TYPES)}", ""
    for field, types, words in (("process", _PROCESSES, "a number or a name"), ("key", _KEYS, "a number, a name or null"),
                                ("index", _INDICES, "a whole number"), ("time", _TIMES, "nanoseconds")):
        if type(obj.get(field)) not in types:
            yield field, f"found {obj.get(field)!r}, allowed: {words}", ""
    if not isinstance(obj.get("f", "" if obj.get("type") in TYPES[1:] else None), str):
        yield "f", f"found {obj.get('f')!r}, allowed: what was asked for, such as read or write", ""
