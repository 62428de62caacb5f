"""Seeded data directories, kept by content, so that an environment starts with its data in place.

A snapshot is made once: the stateful components come up in an environment of their own, the seed is loaded and verified,
the engines stop in good order, and their data directories are kept under the hash of everything that went into them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from envctl import plugins
from envctl.errors import NoEnvironmentError, ResourceError
from envctl.model.environment import Environment
from envctl.model.plan import Plan, Selection
from envctl.model.seed import Seed
from envctl.model.topology import AnyComponent, Kafka, Postgres
from envctl.planner.identity import MAKING
from envctl.record import publish
from envctl.seeding import seeds
from envctl.seeding.files import digest
from envctl.seeding.seeds import Snapshot
from envctl.stack import bring_up, diagnostics, requirements, tear_down
from envctl.substrates.base import Reach
from envctl.toolchain import cache_dir
from envctl.waiting import until

CONTENT = "content.json"  # written last: a snapshot with it is whole
STOP_S = 120.0  # on a busy machine
MAKING_TTL_S = 300.0  # from the last use: what was killed while it made a snapshot is soon gone


def prepare(plan: Plan, seed: Seed, progress: Callable[[str], None]) -> Snapshot:
    """The snapshot of the seed for the plan's stateful components; made when it is not in the cache.

    Raises SpecError for bad data, ResourceError when it can't be made.
    """
    key = key_of(plan, seed, requirements.versions_of(plan))
    home = cache_dir() / "snapshots" / key
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / CONTENT).exists():
            _make(_making_plan(plan, key), seed, home, progress)
    return Snapshot(key, json.loads((home / CONTENT).read_text(encoding="utf-8"))["found"])


def key_of(plan: Plan, seed: Seed, versions: Mapping[str, str]) -> str:
    """The hash of everything that decides what a snapshot holds: seed, migrations and configuration, versions of the engines."""
    stateful = [s.component for s in _stateful(plan)]
    parts = [digest(seed), [(name, plan.source_digests[name], versions[name]) for name in stateful]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _stateful(plan: Plan) -> tuple[Selection, ...]:
    return tuple(s for s in plan.selected if isinstance(plan.topology.components[s.component], Postgres | Kafka))


def abandoned(env_id: str) -> bool:
    """Whether it is an environment for making a snapshot whose maker has gone: nobody holds the snapshot's lock."""
    key = env_id.removeprefix(MAKING)
    return key != env_id and not any(map(_is_held, (cache_dir() / "snapshots").glob(f".{key}*.lock")))


def _is_held(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _making_plan(plan: Plan, key: str) -> Plan:
    env_id = f"{MAKING}{key[:16]}"
    labels = {**plan.labels, "envctl.dev/env": env_id}
    components = {name: _stopping_alone(component) for name, component in plan.topology.components.items()}
    topology = replace(plan.topology, components=components)
    return replace(plan, env_id=env_id, topology=topology, selected=_stateful(plan), stubbed=(), ttl_s=MAKING_TTL_S, labels=labels, digest=key, disks={})


def _stopping_alone(component: AnyComponent) -> AnyComponent:
    """A broker that shuts down asks its controllers for leave, which it does not get any more where they have gone before it."""
    if not isinstance(component, Kafka):
        return component
    return replace(component, settings={**component.settings, "controlled.shutdown.enable": "false"})


def _make(plan: Plan, seed: Seed, home: Path, progress: Callable[[str], None]) -> None:
    partial = home.with_name(f".{home.name}.partial")
    _forget(plan, partial)  # whoever was killed while it made this snapshot may have left a half-loaded one
    try:
        environment = bring_up(plan, progress=progress).environment
        reach: Reach = plugins.load("envctl.substrates", plan.substrate).attach(environment.directory)
        with diagnostics.kept(plan):
            loaded = seeds.load_seed_into(reach, plan.topology, seed, plan.components, progress)
        progress(f"keeping {loaded.rows:,} rows and {loaded.messages:,} messages")
        _stop_all(reach, environment)
        found = json.loads(seeds.notebook_of(environment).read(seeds.MARKER) or "")["found"]
        for node in environment.nodes:
            reach.keep_data(node.name, partial / node.name)
        publish(partial / CONTENT, {"seed": seed.name, "found": found})
        partial.replace(home)
    finally:
        _forget(plan, partial)


def _forget(plan: Plan, partial: Path) -> None:
    with suppress(NoEnvironmentError):
        tear_down(plan.env_id, project=plan.project, substrate=plan.substrate)
    shutil.rmtree(partial, ignore_errors=True)


def _stop_all(reach: Reach, environment: Environment) -> None:
    """Stops the nodes in good order: standbys last, so that they have what their primary wrote."""
    for node in environment.nodes:
        reach.hold(node.name, STOP_S * 2)
    for node in environment.nodes:
        reach.signal(node.name, signal.SIGINT if node.kind == "postgres" else signal.SIGTERM)

    def alive() -> list[str]:
        return [node.name for node in environment.nodes if reach.node(node.name).pid is not None]

    if not until(lambda: not alive(), STOP_S):
        raise ResourceError(f"{', '.join(alive())} of {environment.id} did not stop in {STOP_S:.0f} s, so their data can't be kept")
