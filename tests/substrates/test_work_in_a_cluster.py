"""Seeds and runs are Jobs, and what they record comes back whole, whichever pod dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.cluster import Cluster
from grounds import IMAGE, Ground
from way import Way

from envctl.engines.base import Site
from envctl.engines.realise import realise_all
from envctl.gate import EVERYTHING
from envctl.model.environment import Environment
from envctl.model.plan import Plan, Selection
from envctl.model.seed import Seed
from envctl.model.topology import Probe
from envctl.record import new_run
from envctl.runner.launch import run_inside
from envctl.seeding.seeds import load_seed_into
from envctl.session import finish
from envctl.spec import load_scenario, load_topology
from envctl.substrates.base import LOST
from envctl.substrates.kubernetes import realiser

pytestmark = pytest.mark.kubernetes
OPERATIONS = 250
TOPOLOGY = f"""\
envctl: topology/v1
name: site
components:
  web:
    kind: service
    source: .
    command: [python3, -m, http.server, "8080", --directory, /opt]
    image: {{reference: {IMAGE}, user: "1000", command: [python3, -m, http.server, "8080", --directory, /opt]}}
    ports: {{http: 8080}}
    ready: {{http: /}}
    resources: {{memory: 64Mi}}
"""
SCENARIO = f"""\
envctl: scenario/v1
name: reading
stack: site
owner: nobody
description: Pages are read.
rng_seed: 1
takes: [web]
traffic: {{file: reading.jsonl, to: web, rate: 10/s, for: {OPERATIONS // 10}s}}
steady: [success_rate(traffic) >= 50 %]
slo: {{availability: 50 %}}
"""
COUNTS = (  # a line each moment, on the volume and to its client, until it is told to end or has come to its end
    "import pathlib, signal, sys, time\n"
    "here = pathlib.Path(sys.argv[1])\n"
    "def end(*_): print('healed', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "with (here / 'events').open('a') as events:\n"
    "    for number in range(int(sys.argv[2])):\n"
    "        print(number, file=events, flush=True); print(number, flush=True); time.sleep(0.05)\n"
)
ASKS = (  # what a runner does: it asks for its environment again and again
    "import pathlib, sys, time\n"
    "from envctl.substrates.kubernetes import Kubernetes\n"
    "reach = Kubernetes.attach(pathlib.Path(sys.argv[2]))\n"
    "with (pathlib.Path(sys.argv[1]) / 'events').open('a') as events:\n"
    "    end = time.monotonic() + 20\n"
    "    while time.monotonic() < end or [node.state for node in reach.environment().nodes] != ['ready']:\n"
    "        print(len(reach.environment().nodes), reach.address, file=events, flush=True); time.sleep(0.2)\n"
    "    assert reach.popen(None, ['true']).wait(20) == 0\n"
)
FOLLOWS = (  # a command of envctl's, with a lifeline that ends with it
    "import os, pathlib, subprocess, sys\n"
    "from envctl.substrates.kubernetes import Kubernetes\n"
    "reach = Kubernetes.attach(pathlib.Path(sys.argv[1]))\n"
    "lifeline, ours = os.pipe()\n"
    "reach.popen(None, ['sh', '-c', 'trap : HUP; echo up; cat; echo abandoned > ' + sys.argv[2]], stdin=lifeline, job='run').wait()\n"
)
Line: Any = SimpleNamespace(update=lambda _: None, note=lambda _: None, done=lambda *_, **__: None)


@pytest.fixture
def ground(kubernetes_ground: Ground) -> Ground:
    return kubernetes_ground


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "inputs").mkdir(parents=True)
    (tmp_path / "run" / "inputs" / "a").write_text("given")
    return tmp_path / "run"


class Jobs:
    """The Jobs of envctl's own in an environment, as the cluster has them."""

    def __init__(self, cluster: Cluster, space: str) -> None:
        self._cluster, self._space = cluster, space

    def there(self) -> list[str]:
        return [job["metadata"]["name"] for job in self._cluster.get("jobs", "-n", self._space, "-l", "envctl.dev/part=work")["items"]]

    def made(self) -> set[str]:
        """Kinds of all that there have been, by what the cluster tells of their pods."""
        events = self._cluster.get("events", "-n", self._space)["items"]
        return {each["involvedObject"]["name"].split("-")[1] for each in events if each["reason"] == "SuccessfulCreate" and each["involvedObject"]["kind"] == "Job"}

    def pod(self) -> Any:
        (pod,) = self._cluster.get("pods", "-n", self._space, "-l", "envctl.dev/part=work")["items"]
        return pod

    def kill(self) -> None:
        """As the kernel does, without a word to anybody."""
        self._cluster.run("kill", "-9", str(self._cluster.pid(self._space, self.pod()["metadata"]["name"])))

    def delete(self, part: str, *words: str) -> None:
        self._cluster.kubectl("delete", "pod", "-n", self._space, "-l", f"envctl.dev/part={part}", "--wait=false", *words)


def numbers(run: Path) -> list[str]:
    try:
        return (run / "events").read_text().split()
    except FileNotFoundError:
        return []


def test_work_is_a_job_with_its_streams_and_files_and_its_record_is_whole_up_to_its_pods_death(ground: Ground, cluster: Cluster, run: Path, tmp_path: Path) -> None:
    reach, _ = ground.make()
    jobs = Jobs(cluster, reach.identity.namespace)
    reach.show(run)
    lifeline, ours = os.pipe()
    code = "import os, pathlib, sys; print(pathlib.Path(sys.argv[1], 'inputs/a').read_text(), os.read(0, 9), os.read(0, 9)); print(os.environ['MORE'], file=sys.stderr); sys.exit(7)"
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = reach.popen(None, [*reach.own, "-c", code, str(run)], env={"MORE": "more"}, stdin=lifeline, stdout=out, stderr=err, job="seed")
        os.close(lifeline)
        (name,) = jobs.there()
        assert name.startswith("envctl-seed-")
        (keeper,) = cluster.get("pods", "-n", reach.identity.namespace, "-l", "envctl.dev/part=keeper")["items"]
        pod = jobs.pod()
        assert pod["spec"]["containers"][0]["image"] == keeper["spec"]["containers"][0]["image"]
        assert pod["spec"]["nodeName"] == keeper["spec"]["nodeName"]
        os.write(ours, b"c")
        time.sleep(0.5)  # a byte and the end are two messages
        os.close(ours)
        assert process.wait(30) == 7
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("given b'c' b''\n", "more\n")
    assert jobs.there() == []

    ended = killed(ground, jobs, run, tmp_path / "said")
    assert ended == 128 + signal.SIGTERM
    assert (tmp_path / "said").read_text().split("\n")[-3:] == ["healed", "envctl: the pod was told to end", ""]
    whole(run, tmp_path / "said")
    (run / "events").unlink()
    reach.popen(None, ["rm", str(run / "events")]).wait(20)
    ended = killed(ground, jobs, run, tmp_path / "more", "--grace-period=0", "--force")
    assert ended in (128 + signal.SIGKILL, 128 + signal.SIGTERM)
    assert "envctl: the pod" in (tmp_path / "more").read_text()
    whole(run, tmp_path / "more")
    assert jobs.there() == []


def test_work_whose_client_is_killed_learns_it_and_ends_in_good_order(ground: Ground, cluster: Cluster, run: Path, tmp_path: Path) -> None:
    reach, _ = ground.make()
    reach.show(run)
    client = subprocess.Popen([sys.executable, "-c", FOLLOWS, str(reach.directory), str(run / "events")], stdout=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()

    ground.until(lambda: Jobs(cluster, reach.identity.namespace).pod()["status"]["phase"] in ("Succeeded", "Failed"), "it has ended", within_s=30)
    reach.fetch(run / "events", tmp_path / "events")
    assert (tmp_path / "events").read_text() == "abandoned\n"


def killed(ground: Ground, jobs: Jobs, run: Path, said: Path, *how: str) -> int:
    """The exit status of work whose pod is deleted in the middle of it."""
    with said.open("wb") as out, ground.reach.mirrored(run):
        process = ground.reach.popen(None, [*ground.reach.own, "-c", COUNTS, str(run), "2000"], stdout=out, stderr=out, job="run")
        ground.until(lambda: len(numbers(run)) > 20, "it is under way", within_s=30)
        jobs.delete("work", *how)
        status: int = process.wait(60)
        return status


def whole(run: Path, said: Path) -> None:
    """All that it has said is in its record, line by line, and it did not come to its end."""
    kept = numbers(run)
    assert kept == [str(number) for number in range(len(kept))]
    assert [word for word in said.read_text().split() if word.isdigit()][-1] in kept  # the last ones may have died with the pod's pipe
    assert 20 < len(kept) < 2000


def test_a_keeper_that_is_replaced_in_the_middle_takes_nothing_with_it(ground: Ground, cluster: Cluster, run: Path, tmp_path: Path) -> None:
    reach, made = ground.make()
    jobs = Jobs(cluster, reach.identity.namespace)
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
    made.start_node(ground.node("a-0", "sh", "-c", script, ready=Probe("log", target="line 3$")), ready_timeout_s=60)
    reach.signal("a-0", signal.SIGKILL)
    ground.until(lambda: reach.node("a-0").starts == 2, "it has a second life", within_s=30)
    reach.helper("telemetry", "http.server", "4318", "--bind", reach.address, ready=Probe("tcp", 4318))
    reach.show(run)
    before = reach.address
    with (tmp_path / "said").open("wb") as said, reach.mirrored(run):
        process = reach.popen(None, [*reach.own, "-c", ASKS, str(run), str(reach.directory)], stdout=said, stderr=said, job="run")
        ground.until(lambda: len(numbers(run)) > 10, "it is under way", within_s=30)
        logged = list(reach.log("a-0"))
        jobs.delete("keeper", "--grace-period=0", "--force")
        assert process.wait(90) == 0, (tmp_path / "said").read_text()
    words = numbers(run)
    assert words[::2] == ["1"] * (len(words) // 2), "the environment was always there"
    assert {*words[1::2]} == {before, reach.address}, "and it learnt where the keeper is"
    assert reach.address != before
    after = list(reach.log("a-0"))
    assert after[:len(logged)] == logged, "the log of both lives was kept"
    second = after[after.index("line 1", 1):]
    assert second == [f"line {number}" for number in range(1, len(second) + 1)], "and goes on without a gap"
    reach.wait_ready("telemetry", 30)
    code = "import urllib.request; print(urllib.request.urlopen('http://telemetry:4318/', timeout=5).status)"
    assert reach.run("a-0", ["python3", "-c", code]).stdout == "200\n", "helpers listen where the keeper is now"
    assert [claim["metadata"]["name"] for claim in cluster.get("pvc", "-n", reach.identity.namespace)["items"]] == ["keeper"]


@pytest.fixture
def site(tmp_path: Path, ground: Ground) -> Any:
    """A component that is up, and what a run of a scenario about it needs."""
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    (tmp_path / "reading.yaml").write_text(SCENARIO)
    (tmp_path / "reading.jsonl").write_text('{"at": 0, "op": "read", "http": "GET /", "key": "k"}\n')
    topology = load_topology(tmp_path / "topology.yaml")
    scenario = load_scenario(tmp_path / "reading.yaml", topology)
    reach, made = ground.make()
    for node in realise_all(topology, ("web",), (), Site(topology, reach.identity.env_id, ("web",), (), tmp_path / "cache", packaging="images"))[0].nodes:
        made.start_node(node, ready_timeout_s=90)
    reach.helper("telemetry", "envctl.telemetry.intake", "--directory", str(reach.directory / "telemetry"), "--host", reach.address, ready=Probe("tcp", 4317))
    plan = Plan(reach.identity.env_id, tmp_path, topology, "kubernetes", (Selection("web", "full"),), (), (), 600, {}, {}, "1")
    environment: Environment = reach.environment()
    return SimpleNamespace(reach=reach, plan=plan, scenario=scenario, topology=topology, environment=environment)


def ran(site: Any, meanwhile: Callable[[], None]) -> tuple[int, Path, list[dict[str, Any]]]:
    """Exit status, directory and operations of a run in the middle of which something happens."""
    directory = new_run(site.plan, site.scenario, site.environment.nodes, {})

    def act() -> None:
        Ground.until(lambda: completed(directory) > 60, "it is under way", within_s=60)
        meanwhile()

    actor = threading.Thread(target=act)
    actor.start()
    status = run_inside(site.environment, directory, Line, lambda: False)
    actor.join()
    return status, directory, events_of(directory)


def events_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def completed(directory: Path) -> int:
    try:
        return (directory / "events.jsonl").read_text().count('"type":"ok"')
    except FileNotFoundError:
        return 0


def test_a_run_whose_pod_is_killed_is_inconclusive_on_a_record_that_is_whole_up_to_then(cluster: Cluster, site: Any) -> None:
    jobs = Jobs(cluster, site.reach.identity.namespace)
    load_seed_into(site.reach, site.topology, Seed("nothing", Path("nothing.yaml"), ()), ("web",), lambda _: None)
    seen: list[str] = []

    def kill() -> None:
        seen.extend(jobs.there())
        jobs.kill()

    status, directory, events = ran(site, kill)
    assert [name.split("-")[1] for name in seen] == ["run"]
    assert jobs.made() == {"seed", "run"}
    assert status == 128 + signal.SIGKILL
    assert 60 < sum(each["kind"] == "op" and each["type"] == "ok" for each in events) < OPERATIONS
    assert (directory / "logs" / "web-0.log").read_text().count("GET /") > 60
    assert "envctl: the pod of envctl-run-" in (directory / "runner.log").read_text()
    assert finish(directory, SimpleNamespace(gate=EVERYTHING), Line).outcome == "inconclusive"
    assert jobs.there() == []


def test_a_run_whose_keeper_is_killed_goes_on_and_its_record_is_whole(cluster: Cluster, site: Any) -> None:
    jobs = Jobs(cluster, site.reach.identity.namespace)
    status, directory, events = ran(site, lambda: jobs.delete("keeper", "--grace-period=0", "--force"))
    assert status == 0, (directory / "runner.log").read_text() + (directory / "error.json").read_text()
    assert sum(each["kind"] == "op" and each["type"] == "ok" for each in events) == OPERATIONS
    assert [each["ok"] for each in events if each["kind"] == "step" and each["name"] == "run" and each["edge"] == "end"] == [True]
    assert (directory / "logs" / "web-0.log").read_text().count("GET /") >= OPERATIONS
    assert finish(directory, SimpleNamespace(gate=EVERYTHING), Line).outcome == "pass"


def test_a_run_whose_connection_is_lost_is_waited_for_until_it_has_ended_in_good_order(
    way: Way, cluster: Cluster, site: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracebacks: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    status, directory, events = ran(site, way.cut)
    assert tracebacks == []
    assert status == LOST, (directory / "runner.log").read_text()
    assert re.search(r"envctl: the connection to envctl-run-\w+ was lost; it ended in good order\n", (directory / "runner.log").read_text())
    assert 60 < sum(each["kind"] == "op" and each["type"] == "ok" for each in events) < OPERATIONS
    assert (events[-1]["name"], events[-1]["edge"], events[-1]["detail"]["reason"]) == ("run", "end", "nobody follows it any more")
    assert finish(directory, SimpleNamespace(gate=EVERYTHING), Line).outcome == "inconclusive"
    assert Jobs(cluster, site.reach.identity.namespace).there() == []


def test_without_a_volume_work_is_in_the_keepers_pod_and_that_is_told(ground: Ground, cluster: Cluster, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(realiser.STORAGE_SETTING, "none")
    reach, _ = ground.make()
    reach.show(run)
    assert reach.popen(None, ["grep", "-q", "given", str(run / "inputs" / "a")], job="run").wait(30) == 0
    assert Jobs(cluster, reach.identity.namespace).made() == set()
    assert "no default storage class" in "".join(reach.notes())
    assert not cluster.get("pvc", "-n", reach.identity.namespace)["items"]


def test_work_that_finds_no_room_beside_the_keeper_is_in_its_pod_and_that_is_told(cluster: Cluster, site: Any) -> None:
    jobs, space = Jobs(cluster, site.reach.identity.namespace), site.reach.identity.namespace
    cluster.apply(filler(cluster), namespace="default")
    try:
        Ground.until(lambda: cluster.get("pod", "filler")["spec"].get("nodeName"), "the machine is full", within_s=30)
        told: list[str] = []
        loaded = load_seed_into(site.reach, site.topology, Seed("nothing", Path("nothing.yaml"), ()), ("web",), lambda _: None)
        line = SimpleNamespace(update=lambda _: None, note=told.append, done=lambda *_, **__: None)
        directory = new_run(site.plan, site.scenario, site.environment.nodes, {})
        assert run_inside(site.environment, directory, line, lambda: False) == 0, (directory / "runner.log").read_text()
    finally:
        cluster.kubectl("delete", "pod", "filler", "--grace-period=0", "--force", "--ignore-not-found")
    assert sum(each["kind"] == "op" and each["type"] == "ok" for each in events_of(directory)) == OPERATIONS
    assert "the seed is in the keeper's pod" in loaded.note
    (note,) = told
    assert re.search(r"the run is in the keeper's pod, and ends with it: pod envctl-run-.* finds no node: .*Insufficient cpu", note)
    assert "Insufficient cpu" in (directory / "runner.log").read_text()
    assert jobs.there() == []
    assert not cluster.get("pods", "-n", space, "-l", "envctl.dev/part=work")["items"]


def test_work_that_a_quota_forbids_a_pod_is_in_the_keepers_pod_and_that_is_told(ground: Ground, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(realiser.QUOTA_SETTING, "pods=1")
    reach, _ = ground.make()
    with (tmp_path / "said").open("wb") as said:
        process = reach.popen(None, ["sh", "-c", "echo done >&2"], stderr=said, job="run")
        assert process.wait(30) == 0
    assert re.search(r"the run is in the keeper's pod, and ends with it: Job envctl-run-.*: FailedCreate: .*exceeded quota: limits", process.note)
    assert (tmp_path / "said").read_text() == f"envctl: {process.note}\ndone\n"
    assert Jobs(cluster, reach.identity.namespace).there() == []


def filler(cluster: Cluster) -> dict[str, Any]:
    """A pod that asks for all CPUs that nobody has asked for yet, but a few thousandths."""
    (machine,) = cluster.get("nodes")["items"]
    asked = 0
    for pod in cluster.get("pods", "--all-namespaces")["items"]:
        if pod["status"]["phase"] in ("Running", "Pending"):
            asked += sum(millis(each.get("resources", {}).get("requests", {}).get("cpu", "0")) for each in pod["spec"]["containers"])
    left = millis(machine["status"]["allocatable"]["cpu"]) - asked - 20
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "600"], "resources": {"requests": {"cpu": f"{left}m"}}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}


def millis(cpu: str) -> int:
    return int(cpu[:-1]) if cpu.endswith("m") else int(cpu) * 1000
