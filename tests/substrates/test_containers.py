"""What only substrates of containers have: files that are shown in them, volumes, limits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from grounds import Ground

from envctl.errors import EnvctlError
from envctl.model.topology import Resources


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
def containers(request: pytest.FixtureRequest) -> Ground:
    made: Ground = request.getfixturevalue(f"{request.param}_ground")
    return made


def test_files_and_directories_are_there_under_their_names_before_the_node_starts(containers: Ground, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir(mode=0o700)
    (tmp_path / "examples" / "a.yaml").write_text("a")
    (tmp_path / "run.sh").write_text("#!/bin/sh\ncat /examples/a.yaml\n")
    (tmp_path / "run.sh").chmod(0o700)
    reach, realiser = containers.make()
    files = {"/examples": tmp_path / "examples", "/opt/new/run.sh": tmp_path / "run.sh"}
    realiser.start_node(containers.node("job-0", "/opt/new/run.sh", files=files, one_shot=True), ready_timeout_s=60)
    assert list(reach.log("job-0")) == ["a"]


def test_a_volume_keeps_its_content_over_restarts_and_loses_it_with_another_digest(containers: Ground) -> None:
    reach, realiser = containers.make()
    script = "echo x >> /kept/n; wc -l < /kept/n; exec sleep 300"
    for digest, lines in (("1", ["1", "2"]), ("2", ["1"])):
        realiser.start_node(containers.node("a-0", "sh", "-c", script, volumes=("/kept",), digest=digest), ready_timeout_s=60)
        if digest == "1":
            reach.signal("a-0", signal.SIGKILL)
        containers.until(lambda lines=lines: list(reach.log("a-0")) == lines, "it has counted its starts")


def test_limits_are_enforced(containers: Ground) -> None:
    _, realiser = containers.make()
    eats = "x = bytearray(200_000_000); print(len(x))"
    spec = containers.node("job-0", "python3", "-c", eats, one_shot=True, resources=Resources(cpus=0.5, memory_bytes=64 << 20))
    with pytest.raises(EnvctlError, match="exit status 137"):
        realiser.start_node(spec, ready_timeout_s=60)
