"""Kill -9 at random instants where nodes are containers: whatever it was, the next command of the user leaves nothing behind.

What is left is counted by the engine's and the cluster's own tools.  At a tenth of ENVCTL_CHAOS_INSTANTS of them.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import chaos_site
import pytest
from chaos_site import ALL, CLI, ENGINE, Site
from cluster import load
from cluster.cluster import Cluster
from cluster.fixture import cluster  # noqa: F401
from cluster.plugin import Plugin, kubernetes_plugin  # noqa: F401
from docker_engine.engine import Engine

INSTANTS = int(os.environ.get("ENVCTL_CHAOS_INSTANTS", "20")) // 10  # each takes a minute or more
RECOVERIES = (("down",), ("up", "down"), ("gc", "down"))
IMAGES = ("python:3.11-slim-bookworm", "postgres:15")
APP = f"""    image:
      reference: {IMAGES[0]}
      command: [python3, /srv/serve.py]
      files: {{/srv: app}}
      user: "1000"
"""


@dataclass
class Place:
    """A site on a substrate, and what there is by the word of somebody else."""

    site: Site
    substrate: str
    there: Callable[[], set[str]]

    def left(self, before: set[str], within_s: float = 30.0) -> set[str]:
        deadline = time.monotonic() + within_s
        while (left := self.now() - before) and time.monotonic() < deadline:
            time.sleep(0.3)
        return left

    def now(self) -> set[str]:
        return self.there() | {f"process {each.pid}" for each in self.site.processes()}


def site_in(root: Path, substrate: str) -> Site:
    made = chaos_site.make(root, root / "cache")
    topology = made.project / "stacks" / "tiny" / "topology.yaml"
    topology.write_text(topology.read_text().replace("    command: [python3, /app/serve.py]\n", f"    command: [python3, /app/serve.py]\n{APP}"))
    program = made.project / "stacks" / "tiny" / "app" / "serve.py"
    program.write_text(program.read_text().replace("/data/notes", "/tmp/notes"))  # it is not root here
    project = made.project / "envctl.yaml"
    project.write_text(f"{project.read_text()}substrate: {substrate}\n")
    return made


@pytest.fixture
def in_docker(tmp_path: Path, docker_engine: Engine, docker_images: Callable[..., None]) -> Iterator[Place]:
    docker_images(*IMAGES)

    def there() -> set[str]:
        kinds = {"container": ["ps", "-aq"], "network": ["network", "ls", "-q"], "volume": ["volume", "ls", "-q"]}
        return {f"{kind} {each}" for kind, asked in kinds.items() for each in docker_engine.docker(*asked).stdout.split()}

    yield from ended(Place(site_in(tmp_path, "docker"), "docker", there))


@pytest.fixture
def in_cluster(
    tmp_path: Path, docker_images: Callable[..., None], cluster: Cluster, kubernetes_plugin: Plugin, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> Iterator[Place]:
    docker_images(*IMAGES)
    load.load(cluster, *IMAGES)
    programs = os.environ.get("ENVCTL_CACHE", str(Path.home() / ".cache" / "envctl"))
    loading = shlex.join(("env", f"HOME={Path.home()}", f"ENVCTL_CACHE={programs}", *load.COMMAND, "{image}"))
    for name, value in {**kubernetes_plugin.environment, "ENVCTL_KUBERNETES_LOAD": loading}.items():
        monkeypatch.setenv(name, value)

    def there() -> set[str]:
        kinds = ("namespaces", "persistentvolumes", "clusterroles", "clusterrolebindings")
        return {name for kind in kinds for name in cluster.kubectl("get", kind, "-o", "name").split()}

    yield from ended(Place(site_in(tmp_path, "kubernetes"), "kubernetes", there))


def ended(place: Place) -> Iterator[Place]:
    try:
        yield place
    finally:
        place.site.envctl("down")
        place.site.end()


@pytest.fixture(params=[pytest.param("in_docker", marks=pytest.mark.docker), pytest.param("in_cluster", marks=pytest.mark.kubernetes)])
def place(request: pytest.FixtureRequest) -> Place:
    made: Place = request.getfixturevalue(request.param)
    return made


@pytest.mark.timeout(1500)
def test_a_kill_at_a_random_instant_leaves_nothing_that_the_next_command_does_not_end(place: Place) -> None:
    before = place.now()
    begun = time.monotonic()
    untouched = place.site.ci()
    assert untouched.wait(400) in (0, 5, 7), untouched.text()  # how fast it is on a busy machine is not what is asked here
    takes_s = time.monotonic() - begun
    assert place.left(before) == set(), untouched.text()
    for number in range(INSTANTS):
        draw = random.Random(f"{place.substrate} {number}")
        at_s, who, verbs = draw.uniform(0, takes_s), draw.choice((CLI, ENGINE, ALL)), draw.choice(RECOVERIES)
        command = place.site.ci()
        try:
            command.process.wait(at_s)
        except subprocess.TimeoutExpired:
            place.site.kill(who, command)
        command.process.wait(400)
        assert "Traceback" not in command.text(), command.text()
        for verb in verbs:
            status, said = place.site.envctl(verb, *(["--full"] if verb == "up" else []))
            assert status in ({0, 6} if verb == "down" else {0}), said
        assert place.left(before) == set(), f"{who} was killed at {at_s:.1f} s, then {verbs}"
