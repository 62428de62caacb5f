"""Loads a seed into a living environment, once, and verifies what is there."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from envctl import plugins
from envctl.errors import EnvctlError, Problem, ResourceError, SpecError, UsageError
from envctl.model.environment import Environment
from envctl.model.seed import Seed, TableLoad, TopicLoad
from envctl.model.topology import Topology
from envctl.seeding.files import digest, ready_files
from envctl.substrates.base import Notebook, Reach
from envctl.toolchain import cache_dir

Progress = Callable[[str], None]
MARKER = "seeded.json"  # the environment's note of what was loaded, with its checksums
BEGUN = "seeding.json"  # its note of what is being loaded, until it is known to be there, or to be taken back


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a seed put in place."""

    seed: str
    rows: int
    messages: int
    source: str  # "loaded", "from snapshot" or "already there"
    note: str = ""  # what is to be told of where the loader ran


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Seeded data directories in the cache, one a node, and the checksums of what they hold."""

    key: str
    found: Mapping[str, Any]


def load_seed_into(reach: Reach, topology: Topology, seed: Seed, selected: tuple[str, ...], progress: Progress,
                   started_from: Snapshot | None = None) -> Loaded:
    """Loads the part of the seed that belongs to selected components, unless it is there.

    In an environment that started from a snapshot nothing is loaded, only verified.  Raises SpecError with file and line for bad
    data (nothing is half-loaded), UsageError as `check_mixing` and where an earlier loader left something, ResourceError when it can't be done.
    """
    environment = reach.environment()
    notebook = notebook_of(environment)
    before = check_mixing(environment, seed)
    if before is not None and (started_from is None or before["snapshot"] == started_from.key):
        return _loaded(seed, before["found"], "already there")
    wanted = [load for load in seed.loads if load.component in selected]
    files = {} if started_from else ready_files(seed, cache_dir(), progress)
    if started_from is None:
        if notebook.read(BEGUN) is not None and _holds_any(_run(reach, topology, wanted, files, progress, only_verify=True)[0]):
            raise _doubt(environment, seed.name)
        notebook.write(BEGUN, json.dumps({"seed": seed.name, "digest": digest(seed)}))
    found, note = _run(reach, topology, wanted, files, progress, only_verify=started_from is not None, taken_back=lambda: _forget_begun(notebook))
    if started_from is not None and found != started_from.found:
        raise ResourceError(f"the snapshot of {seed.name} does not hold what was loaded into it: {found} instead of {dict(started_from.found)}",
                            hint="remove the snapshots from the cache: `envctl doctor` says where it is")
    stores = {load.component for load in wanted}
    notebook.write(MARKER, json.dumps({
        "seed": seed.name, "digest": digest(seed), "found": found, "snapshot": started_from.key if started_from else "",
        "nodes": {node.name: node.digest for node in environment.nodes if node.component in stores},
    }))
    _forget_begun(notebook)
    return _loaded(seed, found, "from snapshot" if started_from else "loaded", note)


def check_mixing(environment: Environment, seed: Seed) -> Mapping[str, Any] | None:
    """What a living environment notes of its seed, if it has one.  Raises UsageError for another one, also one that may be there, or one that was lost."""
    notebook = notebook_of(environment)
    if (said := notebook.read(MARKER)) is None:
        begun = json.loads(notebook.read(BEGUN) or "null")
        if begun and begun["digest"] != digest(seed):
            raise _doubt(environment, begun["seed"])
        return None
    before: dict[str, Any] = json.loads(said)
    hint = f"`envctl down {environment.id}` removes it, then run this again"
    if before["digest"] != digest(seed):
        other = before["seed"] if before["seed"] != seed.name else f"{seed.name} as it was before it changed"
        raise UsageError(f"{environment.id} holds the seed {other}, and seeds don't mix", hint=hint)
    nodes = {node.name: node.digest for node in environment.nodes}
    lost = sorted(name for name, known in before["nodes"].items() if nodes.get(name) != known)
    if lost and not before["snapshot"]:  # from a snapshot a new node starts with the same data
        raise UsageError(f"{environment.id} has lost data of the seed {seed.name}: {', '.join(lost)} was replaced", hint=hint)
    return before


def _forget_begun(notebook: Notebook) -> None:
    with suppress(EnvctlError):  # then it is looked for the next time
        notebook.write(BEGUN, None)


def _holds_any(found: Mapping[str, Any]) -> bool:
    return any(each.get("rows", 0) + each.get("messages", 0) for kind in found.values() for each in kind.values())


def _doubt(environment: Environment, seed: str) -> UsageError:
    return UsageError(f"{environment.id} may hold data of the seed {seed}: its loader was lost before it could say whether it had loaded it",
                      hint=f"`envctl down {environment.id}` removes it, then run this again")


def notebook_of(environment: Environment) -> Notebook:
    """What is kept with the environment."""
    notebook: Notebook = plugins.load("envctl.substrates", environment.substrate).notebook(environment.directory)
    return notebook


def _loaded(seed: Seed, found: Mapping[str, Any], source: str, note: str = "") -> Loaded:
    return Loaded(seed.name, sum(t["rows"] for t in found["tables"].values()),
                  sum(t["messages"] for t in found["topics"].values()), source, note)


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
         progress: Progress, *, only_verify: bool, taken_back: Callable[[], None] = lambda: None) -> tuple[Mapping[str, Any], str]:
    """Runs the loader beside the nodes; its last word is what it found.  Returns that, and what is to be told of where it ran.

    `taken_back` is called where the loader says that nothing is left of what it had begun.
    """
    for file in sorted(set(files.values())):
        reach.show(file)
    argv = [*reach.own, "-m", "envctl.seeding.load", *(["--verify"] if only_verify else [])]
    with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as errors:
        job.write(json.dumps(_job(topology, wanted, files)).encode())
        job.seek(0)
        said, writer = os.pipe()
        with os.fdopen(said) as lines:
            try:
                process = reach.popen(None, argv, stdin=job, stdout=writer, stderr=errors, job="seed")
            finally:
                os.close(writer)
            try:
                last = _follow(lines, progress, taken_back)
                status = process.wait(30)
            except BaseException:  # cancelled, for one: what nobody waits for any more must not be loaded after all
                with suppress(EnvctlError, OSError, ValueError):
                    process.signal(signal.SIGTERM)
                    process.wait(15)
                    _follow(lines, lambda _: None, taken_back)
                raise
        if "loaded" in last:
            return last["loaded"], process.note
        if "problem" in last:
            problem = last["problem"]
            raise SpecError([Problem(Path(problem["file"]), problem["line"], "", problem["message"])])
        raise ResourceError(f"the seed could not be loaded: {_tail(errors) or f'the loader ended with status {status}'}")


def _follow(lines: Any, progress: Progress, taken_back: Callable[[], None]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for line in lines:
        last = json.loads(line)
        if "progress" in last:
            progress(last["progress"])
        elif "taken_back" in last:
            taken_back()
    return last


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return "\n".join(errors.read().decode(errors="replace").splitlines()[-5:])
