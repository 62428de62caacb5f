"""What only the Docker substrate has: a keeper that is a container and can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from grounds import Ground

from envctl.errors import EnvctlError
from envctl.model.environment import Node
from envctl.model.topology import Probe
from envctl.substrates.docker.engine import api, shares_users
from envctl.substrates.docker.realiser import _packed

pytestmark = pytest.mark.docker
WEB = ("python3", "-m", "http.server", "8080", "--directory", "/tmp")


@pytest.fixture
def on_docker(docker_ground: Ground) -> Ground:
    return docker_ground


def test_a_keeper_that_is_killed_comes_back_with_all_that_it_kept(on_docker: Ground) -> None:
    reach, realiser = on_docker.make(labels={"stack": "shop"})
    spec = on_docker.node("web-0", *WEB, ready=Probe("http", 8080))
    realiser.start_node(spec, ready_timeout_s=60)
    realiser.start_node(on_docker.node("job-0", "true", one_shot=True), ready_timeout_s=60)
    reach.publish("web.http", "web-0", 8080)
    reach.helper("telemetry", "http.server", "4318", "--bind", reach.address, ready=Probe("tcp", 4318))
    on_docker.substrate.notebook(reach.directory).write("memo", "kept")
    reach.pause("web-0", 60)
    reach.limit("web-0", 60, cpus=0.1, memory_bytes=64 << 20)
    kill(reach.identity.keeper)
    on_docker.until(lambda: api().inspect_container(reach.identity.keeper)["RestartCount"] == 1, "the engine starts it again", within_s=30)
    on_docker.until(lambda: _ready(reach) == {"web-0", "job-0"}, "it finds its nodes, and none of them paused", within_s=30)
    environment = reach.environment()
    assert (environment.stack, set(environment.endpoints)) == ("shop", {"web.http"})
    assert on_docker.substrate.notebook(reach.directory).read("memo") == "kept"
    on_docker.until(lambda: reach.node("telemetry").state == "ready", "helpers are back", within_s=30)
    limits = api().inspect_container(reach.identity.container("web-0"))["HostConfig"]
    assert limits["CpuQuota"] <= 0, "and none of them limited"
    assert limits["Memory"] >= 1 << 40
    assert realiser.start_node(spec, ready_timeout_s=60).starts == 1


def _ready(reach: Any) -> set[str]:
    def done(node: Node) -> bool:
        return node.state == "ready" or (node.state == "exited" and node.exit_status == 0)

    try:
        return {node.name for node in reach.environment().nodes if done(node)}
    except EnvctlError:
        return set()


def test_files_have_the_owner_and_mode_that_they_have_on_the_host(on_docker: Ground, tmp_path: Path) -> None:
    if not shares_users():
        pytest.skip("users of this engine's containers are not those of the machine")
    reach, realiser = on_docker.make()
    uid, gid = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    private = tmp_path / "keys"
    private.mkdir()
    (private / "id").write_text("secret")
    for path, mode in ((private, 0o750), (private / "id", 0o600)):
        os.chown(path, uid, gid)
        path.chmod(mode)
    realiser.start_node(on_docker.node("a-0", "sleep", "300", files={"/keys": private, "/one": private / "id"}), ready_timeout_s=60)
    told = reach.run("a-0", ["stat", "-c", "%n %u:%g %a", "/keys", "/keys/id", "/one"]).stdout
    assert told.splitlines() == [f"/keys {uid}:{gid} 750", f"/keys/id {uid}:{gid} 600", f"/one {uid}:{gid} 600"]


def test_files_are_everybodys_where_their_owner_has_another_number(tmp_path: Path) -> None:
    (tmp_path / "id").touch(mode=0o600)
    with _packed({"/keys": tmp_path}, own=False) as packed, tarfile.open(fileobj=packed) as tar:
        assert {(each.name, each.uid, each.gid, each.mode & 0o444) for each in tar} == {("keys", 0, 0, 0o444), ("keys/id", 0, 0, 0o444)}


KILL = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if int(process.name) not in (1, os.getpid()) and b"envctl.substrates.docker.keeper" in (process / "cmdline").read_bytes():
            os.kill(int(process.name), signal.SIGKILL)
    except OSError:
        pass  # it has gone
"""


def kill(keeper: str) -> None:
    """The keeper's own process, from beside it: its init ends with it.  (What a user kills by name, an engine does not start again.)"""
    made: Any = api().exec_create(keeper, ["python3", "-c", KILL])
    api().exec_start(made["Id"])


def test_a_keeper_that_was_cut_off_by_who_was_killed_while_ending_ends_the_rest_by_its_lease(on_docker: Ground) -> None:
    reach, realiser = on_docker.make()
    realiser.start_node(on_docker.node("web-0", *WEB, ready=Probe("http", 8080)), ready_timeout_s=60)
    reach.renew(2.0)
    api().disconnect_container_from_network(reach.identity.keeper, reach.identity.network, force=True)
    assert not next(found.alive for found in on_docker.substrate.environments() if found.directory == reach.directory)
    on_docker.until(lambda: on_docker.substrate.census(reach.directory) == (), "nothing is left", within_s=30)


def test_an_environment_whose_keeper_was_cut_off_is_made_anew_at_once(on_docker: Ground) -> None:
    reach, realiser = on_docker.make()
    before = api().inspect_container(reach.identity.keeper)["Id"]
    api().disconnect_container_from_network(reach.identity.keeper, reach.identity.network, force=True)
    realiser.create_environment(reach.directory.name, ttl_s=60, labels={})
    assert api().inspect_container(reach.identity.keeper)["Id"] != before
    assert reach.is_alive()


def test_who_reaches_the_engine_but_not_the_keeper_takes_no_living_environment_for_garbage(on_docker: Ground) -> None:
    reach, _ = on_docker.make()
    code = "from envctl import lease; print({each.id: each.health for each in lease.survey()}, [each.env_id for each in lease.garbage(None)])"
    said = subprocess.run(["unshare", "--net", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    assert f"'{reach.directory.name}': 'unknown'" in said
    assert reach.directory.name not in said.partition("}")[2]
    assert reach.is_alive()


def test_as_many_ports_can_be_published_as_the_topology_has_and_some_more(on_docker: Ground) -> None:
    reach, realiser = on_docker.make(labels={"ports": "2"})
    realiser.start_node(on_docker.node("web-0", *WEB, ready=Probe("http", 8080)), ready_timeout_s=60)
    addresses = {reach.publish(f"web.{number}", "web-0", 8080) for number in range(6)}
    assert len(addresses) == 6
    with pytest.raises(EnvctlError, match="all 6 ports"):
        reach.publish("web.6", "web-0", 8080)
