"""Images as topologies name and build them: by digest from a registry, and from Dockerfiles that need BuildKit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker_engine.engine import Engine
from docker_engine.registry import pushed, registry

from envctl.substrates.docker.builder import buildkit
from envctl.toolchain.tool import cache_dir

pytestmark = pytest.mark.docker
REPOSITORY = Path(__file__).parents[2]
PYTHON, TINY = "python:3.11-slim-bookworm", "tiny:1"
TOPOLOGY = "envctl: topology/v1\nname: small\ncomponents:\n  web: {{kind: service, image: {image}, ports: {{http: {port}}}, ready: {{http: /}}}}\n"


@dataclass(frozen=True)
class Project:
    """Somebody's repository, with a cache of its own."""

    root: Path
    engine: Engine

    @property
    def stack(self) -> Path:
        return self.root / "project/stacks/small"

    def topology(self, image: object, port: int) -> None:
        (self.stack / "topology.yaml").write_text(TOPOLOGY.format(image=json.dumps(image), port=port))

    def envctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "ENVCTL_CACHE": str(self.root / "cache"), "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
        argv = [sys.executable, "-m", "envctl", *arguments]
        return subprocess.run(argv, cwd=self.root / "project", env=env, text=True, capture_output=True, timeout=240, check=False)

    def up(self) -> dict[str, Any]:
        done = self.envctl("up", "--full", "--output", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def page(self, up: dict[str, Any]) -> str:
        with urllib.request.urlopen(f"http://{up['endpoints']['web.http']}/index.html", timeout=10) as answer:
            return answer.read().decode()

    def built(self) -> set[str]:
        return set(self.engine.docker("images", "--filter", "reference=envctl-build", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())

    def left(self) -> set[str]:
        kinds = {"container": ["ps", "-aq"], "network": ["network", "ls", "-q"], "volume": ["volume", "ls", "-q"]}
        return {f"{kind} {each}" for kind, asked in kinds.items() for each in self.engine.docker(*asked).stdout.split()}


@pytest.fixture
def project(tmp_path: Path, docker_engine: Engine, docker_images: Callable[..., None]) -> Iterator[Project]:
    docker_images(PYTHON, TINY)
    made = Project(tmp_path, docker_engine)
    made.stack.mkdir(parents=True)
    (made.root / "project/envctl.yaml").write_text("envctl: project/v1\nstack: stacks/small\nbase: main\nsubstrate: docker\n")
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(REPOSITORY / "stacks/hello" / name, made.stack)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/tools").symlink_to(cache_dir() / "tools")
    before, built = made.left(), made.built()
    yield made
    made.envctl("down")
    for image in made.built() - built:
        docker_engine.docker("rmi", image)
    assert made.left() <= before


def page_of(directory: Path, text: str, dockerfile: str) -> Path:
    directory.mkdir()
    (directory / "index.html").write_text(text)
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


def test_an_image_named_by_its_digest_is_pulled_from_its_registry_and_runs(project: Project, tmp_path: Path) -> None:
    context = page_of(tmp_path / "context", "from the registry", f"FROM {TINY}\nCOPY index.html /\n")
    with registry(tmp_path) as address:
        reference = pushed(project.engine, address, context, "web")
        assert project.engine.docker("image", "inspect", reference, check=False).returncode
        project.topology(reference, 80)
        try:
            assert project.page(project.up()) == "from the registry"
            assert project.envctl("down").returncode == 0
        finally:
            project.engine.docker("rmi", "--force", reference, check=False)


def test_a_digest_that_its_registry_does_not_have_is_told_with_component_image_and_reason(project: Project, tmp_path: Path) -> None:
    before = project.left()
    context = page_of(tmp_path / "context", "another", f"FROM {TINY}\nCOPY index.html /\n")
    with registry(tmp_path) as address:
        reference = f"{pushed(project.engine, address, context, 'web').partition('@')[0]}@sha256:{'0' * 64}"
        project.topology(reference, 80)
        done = project.envctl("up", "--full")
    assert done.returncode == 4, done.stderr
    assert f"web: the image {reference} could not be pulled: manifest" in done.stderr
    assert not [each for each in project.engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() if "web" in each]
    assert project.envctl("down").returncode == 0
    assert project.left() <= before


@pytest.fixture
def with_buildkit(docker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A docker command that builds with BuildKit: this machine's, or the one that came with the engine, which needs no plug-in for it."""
    buildkit.cache_clear()
    if not buildkit():
        monkeypatch.setenv("PATH", f"/usr/bin:{os.environ['PATH']}")
        buildkit.cache_clear()
    assert buildkit()
    yield
    buildkit.cache_clear()


FOR_BUILDKIT = f"""\
FROM {PYTHON}
RUN --mount=type=bind,source=index.html,target=/mounted {{}}
WORKDIR /srv
CMD ["python3", "-m", "http.server", "80"]
"""


def test_a_dockerfile_for_buildkit_is_built_by_the_docker_command(project: Project, with_buildkit: None) -> None:
    text = f"by BuildKit {uuid.uuid4()}"  # an image of its own in every run
    page_of(project.stack / "app", text, FOR_BUILDKIT.format("mkdir -p /srv && cp /mounted /srv/index.html"))
    project.topology({"context": "app", "args": {"SOME": "a b"}}, 80)
    assert project.page(project.up()) == text
    assert "images        are built with BuildKit: `docker " in project.envctl("doctor").stdout


def test_what_buildkit_says_about_a_build_that_fails_is_told(project: Project, with_buildkit: None) -> None:
    page_of(project.stack / "app", "never", FOR_BUILDKIT.format("echo no such luck && false"))
    project.topology({"context": "app"}, 80)
    done = project.envctl("up", "--full")
    assert done.returncode == 4, done.stderr
    assert "could not be built (exit 1)" in done.stderr
    assert "no such luck" in done.stderr
