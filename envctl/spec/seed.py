"""`seed.yaml` → Seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.model.seed import Generator, Seed, TableLoad, TopicLoad
from envctl.model.topology import Kafka, Postgres, Topology
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.structure import open_document


def load_seed(file: Path, topology: Topology | None = None) -> Seed:
    """Reads and checks a seed, against the topology where one is given.  Raises SpecError with every problem at once.

    The content of the data files (checksums, counts) is the loaders' business.
    """
    document = open_document(file, "seed", units=("load",))
    data = document.data
    generate = data.get("generate")
    generator = Generator(tuple(generate["command"]), _inputs(document, generate)) if generate else None
    if data["name"] != file.parent.name:
        document.problem(("name",), f"found {data['name']!r}, allowed: the directory's name {file.parent.name!r}")
    loads = []
    for index, raw in enumerate(data["load"]):
        if raw is not None:
            load = _load(document, ("load", index), raw, generated=generator is not None)
            loads.append(load)
            _check_target(document, ("load", index), load, topology)
    document.raise_problems()
    return Seed(data["name"], file, tuple(loads), generator, dict(data.get("labels", {})))


def _inputs(document: Document, generate: Mapping[str, Any]) -> tuple[Path, ...]:
    directory = document.file.parent
    for index, name in enumerate(generate.get("inputs", ())):
        if not (directory / name).exists():
            document.problem(("generate", "inputs", index), f"no file {name!r} in {directory}")
    return tuple(directory / name for name in generate.get("inputs", ()))


def _load(document: Document, at: Location, raw: Mapping[str, Any], *, generated: bool) -> TableLoad | TopicLoad:
    directory, name = document.file.parent, raw["from"]
    committed = (directory / name).is_file()
    if not committed and not generated:
        near = [entry.name for entry in directory.iterdir() if entry.is_file()]
        document.problem((*at, "from"), f"no file {name!r} in {directory}", did_you_mean(name, near))
    file = directory / name if committed else Path(name)
    line = document.line(*at)
    if "topic" in raw:
        return TopicLoad(raw["into"], raw["topic"], file, raw["messages"], raw["sha256"], raw.get("key", ""), line)
    component, _, database = raw["into"].partition("/")
    return TableLoad(component, database, raw["table"], file, raw["rows"], raw["sha256"], line)


def _check_target(document: Document, at: Location, load: TableLoad | TopicLoad, topology: Topology | None) -> None:
    if topology is None:
        return
    target = topology.components.get(load.component)
    wanted = Postgres if isinstance(load, TableLoad) else Kafka
    known = [name for name, component in topology.components.items() if isinstance(component, wanted)]
    kind = wanted.__name__.lower()
    if target is None:
        document.problem((*at, "into"), f"no component is called {load.component!r}", did_you_mean(load.component, known))
    elif not isinstance(target, wanted):
        document.problem((*at, "into"), f"{load.component} is a {target.kind}, a {kind} is needed here", did_you_mean(load.component, known))
    elif isinstance(load, TableLoad) and isinstance(target, Postgres) and load.database not in target.databases:
        document.problem((*at, "into"), f"{target.name} has no database {load.database!r}", did_you_mean(load.database, target.databases))
    elif isinstance(load, TopicLoad) and isinstance(target, Kafka) and load.topic not in target.topics:
        document.problem((*at, "topic"), f"{target.name} has no topic {load.topic!r}", did_you_mean(load.topic, target.topics))
