"""Where the bench `scale` is: a cluster with fake nodes; and what a process costs there."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.project import HERE, copied
from bench.scale_work import objects_of, pods_each

FAKE_NODES, ZONES = 24, ("a", "b", "c")
CONTEXT = "cluster"
SETTLED_S = 1200.0
_LOOK_S, _ROUTINE = 8.0, 0.25  # for so long the API server takes less than so much of a core
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process and all that it started took."""

    wall_s: float
    cpu_s: float
    memory: dict[str, float]  # peak MB by program
    server_cpu_s: float = 0.0  # of the API server meanwhile
    routine_cpu_s: float = 0.0  # what it would have used in that time anyway, by what it used just before
    steady_s: float = 0.0


@dataclass
class Site:
    """A cluster with fake nodes, and what is in it."""

    cluster: Any
    root: Path
    there: list[str] = field(default_factory=list)

    @property
    def api(self) -> Any:
        from envctl.substrates.kubernetes.api import api

        return api(CONTEXT)

    def fill(self, size: int) -> float:
        """Has so many environments in the cluster: one that is applied, and copies of it.  Returns seconds until all their pods are ready."""
        begun = time.perf_counter()
        if not self.there:
            self.there.append(self.apply(_called(0)))
            self.settle()
            self._fit()
        first, others = len(self.there), [_called(number) for number in range(len(self.there), size)]
        model, *words = (_words(env_id) for env_id in (_called(0), *others))
        asked = {"namespace": "-".join(model), "model": model, "copies": words, "first": first}
        self.cluster.run(sys.executable, str(HERE / "bench/scale_copy.py"), stdin=json.dumps(asked), timeout_s=SETTLED_S)
        self.there += others
        self.settle()
        return time.perf_counter() - begun

    def _fit(self) -> None:
        """Has an address for the one service that needs one, as long as those of the copies."""
        thing = next(each for each in objects_of(_called(0)) if each["metadata"]["name"] == "telemetry")
        space = thing["metadata"]["namespace"]
        while not re.fullmatch(r"198\.19\.\d{3}\.\d{3}", self.api.get("Service", "telemetry", space)["spec"]["clusterIP"]):
            self.api.delete("Service", "telemetry", space)
            self.api.apply(thing)

    def apply(self, env_id: str) -> str:
        from envctl.substrates.kubernetes import Kubernetes, clusters

        clusters.remember(Kubernetes.directory(env_id))
        for thing in objects_of(env_id):
            self.api.apply(thing)
        return env_id

    def settle(self) -> None:
        """Waits until no pod is missing or pending."""
        from envctl.waiting import until

        wanted = len(self.there) * pods_each()

        def settled() -> bool:
            all_ = self.api.ask("GET", "/api/v1/pods", query=[("limit", "1")])
            pending = self.api.ask("GET", "/api/v1/pods", query=[("limit", "1"), ("fieldSelector", "status.phase=Pending")])
            return bool(all_["metadata"].get("remainingItemCount", 0) >= wanted and not pending["items"])

        if not until(settled, SETTLED_S, poll_s=0.5) or not until(self._is_quiet, SETTLED_S):
            raise RuntimeError(f"{wanted} pods did not become ready, or the API server does not come to rest")

    def _is_quiet(self) -> bool:
        """Whether the API server has nothing to do but its routine; takes some seconds to see."""
        return self._rate() < _ROUTINE

    def _rate(self) -> float:
        """How many cores the API server uses, while nobody asks for more than always."""
        before, begun = self.spent(), time.perf_counter()
        time.sleep(_LOOK_S)
        return (self.spent() - before) / (time.perf_counter() - begun)

    def up(self, env_id: str) -> Cost:
        """Brings one more up through the engine, and waits until its pods are ready."""
        from envctl.substrates.kubernetes import Kubernetes
        from envctl.substrates.kubernetes.identity import Identity
        from envctl.waiting import until

        space = Identity.of_directory(Kubernetes.directory(env_id)).namespace
        rate = self._rate()
        before, begun = self.spent(), time.perf_counter()
        cost = watched("one_more", env_id)

        def ready() -> bool:
            return bool(sum(pod["status"]["phase"] == "Running" for pod in self.api.find("Pod", space)) >= pods_each())

        if not until(ready, 120, poll_s=0.25):
            raise RuntimeError(f"the pods of {env_id} did not become ready")
        took = time.perf_counter() - begun
        return replace(cost, server_cpu_s=self.spent() - before, routine_cpu_s=rate * took, steady_s=took)

    def parts(self) -> dict[str, int]:
        """PIDs of the control plane."""
        space, found = Path(f"/proc/{self.cluster.init}/ns/pid").readlink(), {}
        for directory in Path("/proc").iterdir():
            with suppress(OSError):
                if directory.name.isdigit() and (directory / "ns/pid").readlink() == space:
                    found[(directory / "exe").readlink().name] = int(directory.name)
        return found

    def spent(self) -> float:
        """CPU seconds of the API server so far."""
        return cpu(self.parts()["kube-apiserver"])


def _called(number: int) -> str:
    return f"scale-{number:04}"


def _words(env_id: str) -> tuple[str, str]:
    """What is different in the objects of two environments; the context of its cluster is noted."""
    from envctl.substrates.kubernetes import Kubernetes, clusters
    from envctl.substrates.kubernetes.identity import Identity

    clusters.remember(Kubernetes.directory(env_id))
    return env_id, Identity.of_directory(Kubernetes.directory(env_id)).key


def cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def resident(pid: int) -> float:
    """MB that a process has now, its share of what is shared."""
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def watched(work: str, env_id: str) -> Cost:
    """Runs `work` in a process of its own; its cost with all that it started."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bench.scale_work", work, env_id], cwd=HERE, stdin=subprocess.DEVNULL)
    memory: dict[str, float] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, memory, over))
    watcher.start()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    over.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{work} {env_id} ended with {process.returncode}")
    return Cost(wall, used.ru_utime + used.ru_stime, memory)


def _watch(pid: int, memory: dict[str, float], over: threading.Event) -> None:
    while not over.wait(0.03):
        for one in _tree(pid):
            with suppress(OSError):
                said = Path(f"/proc/{one}/cmdline").read_bytes()
                name = "plug-in" if b"cluster.provider" in said else "engine" if b"/pulumi\0" in said else "envctl"
                peak = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{one}/status").read_text(), re.MULTILINE)
                memory[name] = max(memory.get(name, 0.0), int(peak[1]) / 1024 if peak else 0.0)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


@contextmanager
def site() -> Iterator[Site]:
    """A cluster of this bench's own with fake nodes, on which alone pods are placed."""
    sys.path.insert(0, str(HERE / "tests"))
    build, plugin, cluster_ = (importlib.import_module(f"cluster.{name}") for name in ("build", "plugin", "cluster"))
    built = build.find()
    if built is None:
        raise RuntimeError("the programs of Kubernetes are not built: `make test-kubernetes` builds them")
    from envctl.toolchain import cache_dir

    with tempfile.TemporaryDirectory(prefix="scale-") as name, copied() as project, cluster_.Cluster(built.home / "scale", built) as cluster:
        root = Path(name)
        (root / "cache").mkdir()
        (root / "cache/tools").symlink_to(cache_dir() / "tools")
        plugin.put(root)
        os.environ |= {
            **cluster.environment, "ENVCTL_CACHE": str(root / "cache"), "SCALE_PROJECT": str(project), "ENVCTL_KUBERNETES_CONTEXT": CONTEXT,
            "PATH": f"{root}:{os.environ['PATH']}",
        }
        player = cluster.kwok()
        try:
            cluster.apply(*map(_fake_node, range(FAKE_NODES)))
            cluster.kubectl("cordon", "node-a")
            yield Site(cluster, root)
        finally:
            os.killpg(player.pid, signal.SIGKILL)
            player.wait()


def _fake_node(number: int) -> dict[str, Any]:
    name, room = f"fake-{number:02}", {"cpu": "1000", "memory": "4Ti", "pods": "2000"}
    labels = {"type": "fake", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": ZONES[number % len(ZONES)]}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels},
        "status": {"allocatable": room, "capacity": room},
    }
