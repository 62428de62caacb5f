"""A versioned data set and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TableLoad:
    """Rows of one file into one table by COPY.  `component`/`database` name a Postgres component and its database."""

    component: str
    database: str
    table: str
    file: Path
    rows: int
    sha256: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class TopicLoad:
    """Messages of one JSON-lines file into one topic; `key` names the field of the value that is the message key."""

    component: str
    topic: str
    file: Path
    messages: int
    sha256: str
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Generator:
    """A deterministic program that writes the data files into `$OUT`; run when they are not in the cache."""

    command: tuple[str, ...]
    inputs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Seed:
    """`seeds/NAME/seed.yaml`.  Loads run in the order given; relative files belong to the seed's directory or `$OUT`."""

    name: str
    file: Path
    loads: tuple[TableLoad | TopicLoad, ...]
    generate: Generator | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
