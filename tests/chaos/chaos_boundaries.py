"""The instants at which a session's journal goes on, each as a condition on what can be seen from outside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from chaos_site import ALL, CELL, CLI, ENGINE, HELPERS, Running, Site, until

REACHED_S = 120.0
TRIES = 3


@dataclass(frozen=True)
class Boundary:
    """`reached` is asked until it is true; `fresh` ones need that there is no snapshot of the seed yet."""

    phase: str
    name: str
    reached: Callable[[Site], bool]
    victims: tuple[str, ...]
    fresh: bool = False
    always: bool = False  # whether a default run of the tests kills here


def _made(site: Site, path: str, *, snapshot: bool = False) -> bool:
    places = site.envs.glob("snapshot-*") if snapshot else site.environments()
    return any(any(place.glob(path)) for place in places)


def _loads(site: Site, *, snapshot: bool) -> bool:
    found = [match for each in site.processes() if b"-m\0envctl.seeding.load\0" in each.text
             and (match := re.search(rb"ENVCTL_CELL=[^\0]*/envs/(snapshot-)?", each.text))]
    return any(bool(match[1]) == snapshot for match in found)


def _edge(edge: str) -> Callable[[Site], bool]:
    pattern = re.compile(rb'"kind":"fault"[^\n]*"edge":"%b"|"edge":"%b"[^\n]*"kind":"fault"' % (edge.encode(), edge.encode()))
    return lambda site: bool(pattern.search(site.events()))


def _written(name: str) -> Callable[[Site], bool]:
    return lambda site: bool((run := site.run_directory()) and (run / name).exists())


def _ended(site: Site) -> bool:
    return bool(re.search(rb'"name":"run","edge":"end"', site.events()))


UP = (CLI, CELL, ENGINE, ALL)
RUN = (CLI, HELPERS, CELL, ALL)
LATE = (CLI, CELL, ALL)

BOUNDARIES = (
    Boundary("create", "the first cell begins", lambda s: bool(s.makers()), UP, fresh=True, always=True),
    Boundary("seed", "the snapshot's cell is made", lambda s: _made(s, "cell.json", snapshot=True), UP, fresh=True),
    Boundary("seed", "the loader loads", lambda s: _loads(s, snapshot=True), RUN, fresh=True),
    Boundary("seed", "the seed is loaded", lambda s: _made(s, "notes/seeded.json", snapshot=True), RUN, fresh=True, always=True),
    Boundary("seed", "the data is being kept", lambda s: any(s.cache.glob("snapshots/.*.partial/*")), LATE, fresh=True),
    Boundary("create", "the cell is made", lambda s: _made(s, "cell.json"), UP, always=True),
    Boundary("create", "the database starts", lambda s: any(name.endswith("db-0") for name in s.nodes()), UP),
    Boundary("create", "the database is provisioned", lambda s: _made(s, "notes/db.provision.log"), UP),
    Boundary("create", "the service starts", lambda s: any(name.endswith("app-0") for name in s.nodes()), UP, always=True),
    Boundary("seed", "the snapshot is verified", lambda s: _loads(s, snapshot=False), RUN, always=True),
    Boundary("run", "the run is prepared", _written("run.json"), RUN),
    Boundary("apply", "the fault is journalled", _edge("journal"), RUN, always=True),
    Boundary("apply", "the fault is applied", _edge("apply"), RUN),
    Boundary("apply", "the fault is held", _edge("verify"), RUN, always=True),
    Boundary("heal", "the fault is healed", _edge("heal"), RUN, always=True),
    Boundary("heal", "its absence is shown", _edge("absent"), RUN),
    Boundary("verdict", "the run has ended", _ended, LATE),
    Boundary("verdict", "the verdict is saved", _written("verdict.json"), LATE, always=True),
    Boundary("teardown", "the report is written", _written("junit.xml"), LATE),
    Boundary("teardown", "the cell is ended", lambda s: not s.cells() and _written("junit.xml")(s), (CLI,), always=True),
)
# One pair for each of some boundaries, every kind of victim in turn: what a default run of the tests kills.
SAMPLE = tuple((each, each.victims[number % len(each.victims)]) for number, each in enumerate(b for b in BOUNDARIES if b.always))
EVERY = tuple((each, who) for each in BOUNDARIES for who in each.victims)


def forget_runs(site: Site) -> None:
    """So that the newest run is the one under way."""
    shutil.rmtree(site.project / ".envctl" / "runs", ignore_errors=True)


def forget_snapshots(site: Site) -> None:
    """So that the next run makes one."""
    shutil.rmtree(site.cache / "snapshots", ignore_errors=True)


def begin(site: Site, name: str) -> Running:
    """A session that has come as far as the boundary, and is still under way; one in which that was over before it was seen is repeated."""
    (wanted,) = (each for each in BOUNDARIES if each.name == name)
    for _ in range(TRIES):
        forget_runs(site)
        if wanted.fresh:
            forget_snapshots(site)
        command = site.ci()
        assert until(lambda command=command: wanted.reached(site) or command.process.poll() is not None, REACHED_S), command.text()
        if command.process.poll() is None:
            return command
        assert command.process.returncode in (0, 7), command.text()
    raise AssertionError(f"it ended before {name}: {command.text()}")
