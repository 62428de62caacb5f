"""Where the bench `scale` is: a cluster with fake nodes, and what is in it."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.project import HERE, copied
from bench.scale_cost import Cost, Spent, cpu, resident, watched
from bench.scale_work import objects_of, pods_each

FAKE_NODES, ZONES = 24, ("a", "b", "c")
CONTEXT = "cluster"
CONTROLLERS = "kube-controller-manager"
PLANE = ("kube-apiserver", "etcd", CONTROLLERS, "kube-scheduler")
SETTLED_S, QUIET_S = 600.0, 600.0
_LOOK_S = 16.0  # longer than controllers take from one look at what they have to the next
_ROUTINE = 0.25  # cores that a part of the control plane may use at rest
_LIFE_S = 86_400.0
_FITTING = re.compile(r"198\.19\.\d{3}\.\d{3}")


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
        """Has so many environments in the cluster: one that is applied, and copies of it.  Returns seconds until all their pods are ready.

        Raises RuntimeError with what is missing when they do not become so.
        """
        begun = time.perf_counter()
        if not self.there:
            self.there.append(self.apply(_called(0)))
            self._fit()
            self.settle()
        others = [_called(number) for number in range(len(self.there), size)]
        # Controllers hear of each kind by itself: of a copy's claim before its volume, and of its pods before what owns them, so that they
        # would take the one for lost and the other for garbage.  When they start, they list every kind before they do anything.
        with self.cluster.without(CONTROLLERS):
            self._copy(others)
        self.there += others
        self.settle()
        return time.perf_counter() - begun

    def _copy(self, others: Sequence[str]) -> None:
        model, *words = (_words(env_id) for env_id in (_called(0), *others))
        asked = {"namespace": "-".join(model), "model": model, "copies": words, "first": len(self.there)}
        try:
            self.cluster.run(sys.executable, str(HERE / "bench/scale_copy.py"), stdin=json.dumps(asked), timeout_s=SETTLED_S)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{len(others)} copies were not made within {SETTLED_S:g} s") from error

    def _fit(self) -> None:
        """Has an address for the one service that needs one, as long as those of the copies."""
        thing = next(each for each in objects_of(_called(0)) if each["metadata"]["name"] == "telemetry")
        space = thing["metadata"]["namespace"]
        for _ in range(100):  # a third of them fit
            if _FITTING.fullmatch(self.api.get("Service", "telemetry", space)["spec"]["clusterIP"]):
                return
            self.api.delete("Service", "telemetry", space)
            self.api.apply(thing)
        raise RuntimeError("no service got an address of fifteen characters")

    def apply(self, env_id: str) -> str:
        from envctl.substrates.kubernetes import Kubernetes, clusters
        from envctl.substrates.kubernetes.identity import EXPIRES

        clusters.remember(Kubernetes.directory(env_id))
        namespace, *others = objects_of(env_id)
        namespace["metadata"]["annotations"][EXPIRES] = str(int(time.time() + _LIFE_S))  # as keepers have it
        for thing in (namespace, *others):
            self.api.apply(thing)
        return env_id

    def settle(self) -> None:
        """Waits until no pod is missing or pending, and the control plane has nothing to do but its routine.  Raises RuntimeError with what is missing."""
        from envctl.waiting import until

        if not until(lambda: self._are_there() and not self._pending(most=1), SETTLED_S, poll_s=0.5):
            raise RuntimeError(f"the pods of {len(self.there)} environments are not ready after {SETTLED_S:g} s:\n{self._missing()}")
        if unbound := self._unbound():
            raise RuntimeError(f"{len(unbound)} claims have lost their volume, first {unbound[0]}")
        if not until(lambda: max(self.rates().values()) < _ROUTINE, QUIET_S):
            busy = ", ".join(f"{name} {rate:.2f}" for name, rate in self.rates().items())
            raise RuntimeError(f"the control plane does not come to rest within {QUIET_S:g} s; cores in use: {busy}")

    def _are_there(self) -> bool:
        """Whether there are as many pods as there should be; the cluster has some of its own beside."""
        return self._count("pods") > len(self.there) * pods_each()

    def _count(self, plural: str) -> int:
        answer = self.api.ask("GET", f"/api/v1/{plural}", query=[("limit", "1")])
        return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))

    def _pending(self, most: int) -> list[dict[str, Any]]:
        query = [("limit", str(most)), ("fieldSelector", "status.phase=Pending")]
        return list(self.api.ask("GET", "/api/v1/pods", query=query)["items"])

    def _missing(self) -> str:
        """Why pods are not ready, in the cluster's words."""
        lines = [f"{self._count('pods')} pods are there, {len(self.there) * pods_each()} should be"]
        for pod in self._pending(most=5):
            told = [each.get("message", "") for each in pod["status"].get("conditions", ()) if each["status"] == "False"]
            lines.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']} is pending: {' '.join(told)}")
        return "\n".join(lines)

    def _unbound(self) -> list[str]:
        claims = self.api.find("PersistentVolumeClaim")
        return [f"{one['metadata']['namespace']}/{one['metadata']['name']}: {one['status']['phase']}" for one in claims if one["status"]["phase"] != "Bound"]

    def rates(self) -> Spent:
        """How many cores each part of the control plane uses, while nobody asks for more than always."""
        before, begun = self.spent(), time.perf_counter()
        time.sleep(_LOOK_S)
        took, after = time.perf_counter() - begun, self.spent()
        return {name: (after[name] - before[name]) / took for name in PLANE}

    def up(self, env_id: str) -> Cost:
        """Brings one more up through the engine, and waits until its pods are ready."""
        from envctl.substrates.kubernetes import Kubernetes
        from envctl.substrates.kubernetes.identity import Identity
        from envctl.waiting import until

        space = Identity.of_directory(Kubernetes.directory(env_id)).namespace

        def ready() -> bool:
            return bool(sum(pod["status"]["phase"] == "Running" for pod in self.api.find("Pod", space)) >= pods_each())

        def work() -> Cost:
            cost = watched("one_more", env_id)
            if not until(ready, 120, poll_s=0.25):
                raise RuntimeError(f"the pods of {env_id} did not become ready within 120 s")
            return cost

        return self._beside(work)

    def down(self, env_id: str) -> Cost:
        """Ends one."""
        return self._beside(lambda: watched("one_less", env_id))

    def _beside(self, work: Callable[[], Cost]) -> Cost:
        """The cost of some work, with what the control plane used meanwhile, and would have used anyway."""
        rates, before, begun = self.rates(), self.spent(), time.perf_counter()
        cost = work()
        took, after = time.perf_counter() - begun, self.spent()
        plane = {name: after[name] - before[name] for name in PLANE}
        return replace(cost, plane_s=plane, routine_s={name: rate * took for name, rate in rates.items()}, steady_s=took)

    def memory(self) -> dict[str, float]:
        """MB of each part of the control plane."""
        programs = self.cluster.programs()
        return {name: resident(programs[name]) for name in PLANE}

    def live(self) -> float:
        """MB that the API server's objects take, once its garbage has been collected (twice: what is pooled survives once).

        What the process has from the kernel is larger, and depends on when the collector ran last: by tens of MB.
        """
        said = [self.cluster.kubectl("get", "--raw", "/debug/pprof/heap?debug=1&gc=1") for _ in range(3)]
        return min(int(found[1]) for text in said if (found := re.search(r"^# HeapAlloc = (\d+)$", text, re.MULTILINE))) / 2**20

    def spent(self) -> Spent:
        """CPU seconds of each part of the control plane so far."""
        programs = self.cluster.programs()
        return {name: cpu(programs[name]) for name in PLANE}


def _called(number: int) -> str:
    return f"scale-{number:04}"


def _words(env_id: str) -> tuple[str, str]:
    """What is different in the objects of two environments; the context of its cluster is noted."""
    from envctl.substrates.kubernetes import Kubernetes, clusters
    from envctl.substrates.kubernetes.identity import Identity

    clusters.remember(Kubernetes.directory(env_id))
    return env_id, Identity.of_directory(Kubernetes.directory(env_id)).key


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
        variables = {
            **cluster.environment, "ENVCTL_CACHE": str(root / "cache"), "SCALE_PROJECT": str(project), "ENVCTL_KUBERNETES_CONTEXT": CONTEXT,
            "PATH": f"{root}:{os.environ['PATH']}",
        }
        player = cluster.kwok()
        try:
            cluster.apply(*map(_fake_node, range(FAKE_NODES)))
            cluster.kubectl("cordon", "node-a")
            with patch.dict(os.environ, variables):
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
