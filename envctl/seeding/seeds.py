"""Loads a seed into a living environment, once, and verifies what is there."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl import plugins
from envctl.errors import Problem, ResourceError, SpecError
from envctl.model.seed import Seed, TableLoad, TopicLoad
from envctl.model.topology import Topology
from envctl.record import publish
from envctl.seeding.files import digest, ready_files
from envctl.substrates.base import Reach
from envctl.toolchain import cache_dir

Progress = Callable[[str], None]
MARKER = "seeded.json"  # in the environment's directory: what was loaded, with its checksums


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a seed put in place."""

    seed: str
    rows: int
    messages: int
    source: str  # "loaded", "from snapshot" or "already there"


def load_seed_into(reach: Reach, topology: Topology, seed: Seed, selected: tuple[str, ...], progress: Progress,
                   *, expected: Mapping[str, Any] | None = None) -> Loaded:
    """Loads the part of the seed that belongs to selected components, unless it is there.

    `expected` are the checksums of the snapshot that the environment started from: then nothing is loaded, only verified.
    Raises SpecError with file and line for bad data (nothing is half-loaded), ResourceError when it can't be done.
    """
    directory = reach.environment().directory
    before = _marker(directory)
    if before is not None and before["digest"] == digest(seed):
        return _loaded(seed, before["found"], "already there")
    if before is not None:
        raise ResourceError(f"this environment holds the seed {before['seed']}, and seeds don't mix",
                            hint="`envctl down`, then `up` again")
    wanted = [load for load in seed.loads if load.component in selected]
    files = {} if expected else ready_files(seed, cache_dir(), progress)
    found = _run(reach, topology, wanted, files, progress, only_verify=expected is not None)
    if expected is not None and found != expected:
        raise ResourceError(f"the snapshot of {seed.name} does not hold what was loaded into it: {found} instead of {dict(expected)}",
                            hint="remove the snapshots from the cache: `envctl doctor` says where it is")
    publish(directory / MARKER, {"seed": seed.name, "digest": digest(seed), "found": found})
    return _loaded(seed, found, "from snapshot" if expected else "loaded")


def _marker(directory: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _loaded(seed: Seed, found: Mapping[str, Any], source: str) -> Loaded:
    return Loaded(seed.name, sum(t["rows"] for t in found["tables"].values()),
                  sum(t["messages"] for t in found["topics"].values()), source)


def _job(topology: Topology, wanted: list[TableLoad | TopicLoad], files: Mapping[Path, Path]) -> dict[str, Any]:
    tables, topics = [], []
    for load in wanted:
        component = topology.components[load.component]
        endpoints = plugins.load("envctl.engines", component.kind)().endpoints(component)
        common = {"component": load.component, "file": str(files.get(load.file, load.file))}
        if isinstance(load, TableLoad):
            url = endpoints[f"{load.database}.url"]
            tables.append(common | {"url": url, "database": load.database, "table": load.table, "rows": load.rows})
        else:
            topics.append(common | {"bootstrap": endpoints["bootstrap"], "topic": load.topic, "key": load.key,
                                    "messages": load.messages})
    return {"tables": tables, "topics": topics}


def _run(reach: Reach, topology: Topology, wanted: list[TableLoad | TopicLoad], files: Mapping[Path, Path],
         progress: Progress, *, only_verify: bool) -> dict[str, Any]:
    """Runs the loader beside the nodes; its last word is what it found."""
    with tempfile.TemporaryDirectory(prefix="seed-", dir=reach.environment().directory) as scratch:
        job, errors = Path(scratch) / "job.json", Path(scratch) / "errors"
        job.write_text(json.dumps(_job(topology, wanted, files)), encoding="utf-8")
        argv = [sys.executable, "-P", "-m", "envctl.seeding.load", str(job), *(["--verify"] if only_verify else [])]
        said, writer = os.pipe()
        with errors.open("wb") as stderr, os.fdopen(said) as lines:
            try:
                process = reach.popen(None, argv, stdout=writer, stderr=stderr)
            finally:
                os.close(writer)
            last = _follow(lines, progress)
            status = process.wait(30)
        if "loaded" in last:
            found: dict[str, Any] = last["loaded"]
            return found
        if "problem" in last:
            problem = last["problem"]
            raise SpecError([Problem(Path(problem["file"]), problem["line"], "", problem["message"])])
        raise ResourceError(f"the seed could not be loaded: {_tail(errors) or f'the loader ended with status {status}'}")


def _follow(lines: Any, progress: Progress) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for line in lines:
        last = json.loads(line)
        if "progress" in last:
            progress(last["progress"])
    return last


def _tail(errors: Path) -> str:
    return "\n".join(errors.read_text(errors="replace").splitlines()[-5:])
