"""Values of Compose files that know where they were written and whether anybody has read them.

What nobody read is what was not carried over: that is how nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from envctl.errors import Problem, SpecError

Data: TypeAlias = "str | list[Value] | dict[str, Value] | None"


@dataclass(slots=True, eq=False)
class Value:
    """One value.  Scalars are the text as it is written; null is None."""

    data: Data
    file: Path
    line: int
    base: Path  # relative paths in it count from here
    tag: str = ""  # `!reset` or `!override`
    read: bool = False

    def like(self, data: Data) -> Value:
        """Other data in the place of this."""
        return replace(self, data=data, tag="", read=False)

    def copy(self) -> Value:
        """The same, down to the leaves, read by nobody."""
        if isinstance(self.data, dict):
            return replace(self, data={key: value.copy() for key, value in self.data.items()}, read=False)
        if isinstance(self.data, list):
            return replace(self, data=[value.copy() for value in self.data], read=False)
        return replace(self, read=False)

    def scalars(self) -> Iterator[Value]:
        """Its leaves: scalars, and mappings and lists without anything in them."""
        below = self.data.values() if isinstance(self.data, dict) else self.data if isinstance(self.data, list) else ()
        if not below:
            yield self
        for value in below:
            yield from value.scalars()

    def mark(self) -> None:
        """All of it has been read."""
        for value in self.scalars():
            value.read = True


@dataclass(frozen=True, slots=True)
class Cursor:
    """A value and where it stands in the project, such as `services.web.ports[0]`."""

    value: Value
    at: tuple[str, ...] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """The field's own name."""
        return self.at[-1] if self.at else ""

    @property
    def kind(self) -> str:
        """`text`, `null`, `list` or `mapping`."""
        data = self.value.data
        return "mapping" if isinstance(data, dict) else "list" if isinstance(data, list) else "null" if data is None else "text"

    def error(self, message: str, hint: str = "") -> SpecError:
        """What is wrong with the value, to be raised."""
        return SpecError([Problem(self.value.file, self.value.line, dotted(self.at), message, hint)])

    def find(self, *keys: str) -> Cursor | None:
        """The value under a key, of which null is none; or of a key in that, and so on."""
        here = self
        for key in keys:
            below = here.entries().get(key)
            if below is None:
                return None
            if below.kind == "null":
                below.value.mark()
                return None
            here = below
        return here

    def entries(self) -> dict[str, Cursor]:
        """The values of a mapping; none of null.  Raises SpecError for anything else."""
        if self.value.data is None:
            self.value.read = True
            return {}
        if not isinstance(self.value.data, dict):
            raise self.error(f"found {self._found()}, allowed: a mapping")
        if not self.value.data:
            self.value.read = True
        return {key: Cursor(value, (*self.at, key)) for key, value in self.value.data.items()}

    def items(self) -> list[Cursor]:
        """The values of a list; a single text is a list of one.  Raises SpecError for a mapping."""
        if isinstance(self.value.data, list):
            if not self.value.data:
                self.value.read = True
            return [Cursor(value, (*self.at, f"[{index}]")) for index, value in enumerate(self.value.data)]
        if isinstance(self.value.data, dict):
            raise self.error("found a mapping, allowed: a list")
        return [self] if self.value.data is not None else []

    def listed(self, *keys: str) -> list[Cursor]:
        """The values of the list under a key; none when there is none."""
        found = self.find(*keys)
        return found.items() if found else []

    def mapped(self, *keys: str) -> dict[str, Cursor]:
        """The values of the mapping under a key; none when there is none."""
        found = self.find(*keys)
        return found.entries() if found else {}

    def text(self) -> str:
        """The text of a scalar, which counts as read; empty for null.  Raises SpecError for a list or mapping."""
        if isinstance(self.value.data, list | dict):
            raise self.error(f"found {self._found()}, allowed: a text")
        self.value.read = True
        return self.value.data or ""

    def number(self) -> int:
        """A whole number.  Raises SpecError."""
        text = self.text()
        if not text.isdecimal():
            raise self.error(f"found {text!r}, allowed: a whole number")
        return int(text)

    def true(self) -> bool:
        """A boolean.  Raises SpecError."""
        text = self.text().lower()
        if text not in ("true", "false", "yes", "no", "on", "off"):
            raise self.error(f"found {text!r}, allowed: true or false")
        return text in ("true", "yes", "on")

    def get(self, *keys: str) -> str:
        """The text under a key; empty when there is none."""
        found = self.find(*keys)
        return found.text() if found else ""

    def mark(self) -> None:
        """All of it has been read."""
        self.value.mark()

    def _found(self) -> str:
        return {"mapping": "a mapping", "list": "a list", "null": "nothing"}.get(self.kind, repr(self.value.data))


def dotted(at: tuple[str, ...]) -> str:
    """`services.web.ports[0]`."""
    return "".join(part if part.startswith("[") else f".{part}" for part in at).lstrip(".")
