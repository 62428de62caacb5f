"""A real Kubernetes of one node for tests: `with Cluster(directory) as cluster`.

It lives in namespaces of its own: nothing of the machine changes outside `directory`.  Whoever enters while it lives shares it;
when the last one has left, or has been killed, it ends.  Needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cluster import build, parts

from envctl.errors import CapabilityError, ResourceError
from envctl.toolchain import apt, find
from envctl.waiting import until

_START_S, _PART_S = 180.0, 30.0


class Cluster:
    """A handle on the cluster of a directory; more than one process may have one.

    Images that were loaded are there for the next cluster of that directory; objects and volumes are not.
    """

    def __init__(self, directory: Path, built: build.Built) -> None:
        self.directory = directory
        self.built = built
        self.kubeconfig = directory / "kubeconfig"

    def __enter__(self) -> Self:
        if os.geteuid():
            raise CapabilityError("a cluster for tests needs root: its node makes namespaces, mounts and control groups")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._lease = (self.directory / "users").open("w")
            fcntl.flock(self._lease, fcntl.LOCK_SH)
            until(lambda: self._ready() or not self._alive(), _START_S)
            if not self._ready():
                self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Lets go; when nobody else holds the cluster, returns when nothing of it is left."""
        with self._alone():
            self._lease.close()
            if not until(lambda: not self._alive() or self._used(), 60):
                raise ResourceError(f"the cluster of {self.directory} does not end")

    @property
    def times(self) -> dict[str, float]:
        """Seconds from its start until each of its parts was ready."""
        return dict(json.loads((self.directory / "ready.json").read_text())["times"])

    @property
    def init(self) -> int:
        """The PID, on this machine, of the process whose namespaces are the node's."""
        return int(json.loads((self.directory / "running.json").read_text())["init"])

    @property
    def environment(self) -> dict[str, str]:
        """What kubectl, and other clients on the host, need in order to speak to this cluster, and to write nowhere else."""
        return {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": f"{self.directory}/asked"}

    def kubectl(self, *words: str, stdin: str | None = None, timeout_s: float = 60.0, **env: str) -> str:
        """What kubectl says, as the administrator.  Raises ResourceError with its reason when it refuses."""
        return _output([str(self.built.programs["kubectl"]), *words], stdin, timeout_s, {**self.environment, **env})

    def apply(self, *objects: object, namespace: str = "default") -> None:
        """Applies objects, given as they are written in JSON."""
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=items)

    def get(self, *words: str) -> Any:
        """`kubectl get … -o json`."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs a command on the node, with its view of files, network and processes."""
        node = json.loads((self.directory / "settings.json").read_text())
        environment = [f"PATH={node['path']}", f"LD_LIBRARY_PATH={node['library_path']}", f"KUBECONFIG={parts.ETC}/admin.kubeconfig"]
        return ["nsenter", "--target", str(self.init), "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "env", *environment, *argv]

    def run(self, *argv: str, stdin: str | IO[bytes] | None = None, timeout_s: float = 60.0) -> str:
        """Runs a command on the node and returns what it says.  Raises ResourceError when it fails."""
        return _output(self.inside(*argv), stdin, timeout_s, {})

    def load(self, archive: Path) -> tuple[str, ...]:
        """Imports the images of an archive (OCI layout, or `docker save`); returns their names, each good with its digest too."""
        with archive.open("rb") as stream:
            return self.load_stream(stream)

    def load_stream(self, stream: IO[bytes]) -> tuple[str, ...]:
        """As `load`, from what is just being written."""
        said = self.run("ctr", "-n", "k8s.io", "images", "import", "-", stdin=stream, timeout_s=600)
        names = tuple(line.split()[1] for line in said.splitlines() if line.startswith("unpacking "))
        known = {line.split()[0]: line.split()[2] for line in self.run("ctr", "-n", "k8s.io", "images", "ls").splitlines()[1:]}
        for name in names:
            repository = name.rpartition(":")[0]
            self.run("ctr", "-n", "k8s.io", "images", "tag", "--force", name, f"{repository}@{known[name]}")
        return names

    def pid(self, namespace: str, pod: str) -> int:
        """The PID, on the node, of the first process of a pod's first container."""
        status = self.get("pod", pod, "-n", namespace)["status"]["containerStatuses"][0]
        container = status["containerID"].rpartition("/")[2]
        tasks = {line.split()[0]: line.split()[1] for line in self.run("ctr", "-n", "k8s.io", "tasks", "ls").splitlines()[1:]}
        return int(tasks[container])

    def kwok(self) -> subprocess.Popen[bytes]:
        """Starts what plays the kubelet of nodes annotated `kwok.x-k8s.io/node: fake`; it ends with the cluster, or when killed."""
        words = (
            f"--kubeconfig={parts.ETC}/admin.kubeconfig", f"--config={self.built.stages}", "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", f"--cidr={parts.FAKE_PODS}",
            f"--node-ip={parts.NODE_IP}", "--node-lease-duration-seconds=40", "--server-address=127.0.0.1:10247",
        )
        with (self.directory / "logs/kwok.log").open("wb") as log:
            argv = self.inside(str(self.built.programs["kwok"]), *words)
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def programs(self) -> dict[str, int]:
        """What runs on the node itself, by the name of its executable: PIDs on this machine."""
        space, found = Path(f"/proc/{self.init}/ns/pid").readlink(), {}
        for directory in Path("/proc").iterdir():
            with suppress(OSError):
                if directory.name.isdigit() and (directory / "ns/pid").readlink() == space:
                    found[(directory / "exe").readlink().name] = int(directory.name)
        return found

    @contextmanager
    def without(self, part: str) -> Iterator[None]:
        """While one of its parts, a program of that name, does not run; it starts anew afterwards, and takes what it finds as it is."""
        rests = self.directory / "rests" / part
        rests.parent.mkdir(exist_ok=True)
        rests.touch()
        try:
            os.kill(self.programs()[part], signal.SIGTERM)
            if not until(lambda: part not in self.programs(), _PART_S):
                raise ResourceError(f"{part} does not end within {_PART_S:g} s")
            yield
        finally:
            rests.write_text("over")
            if not until(lambda: part in self.programs(), _PART_S):
                raise ResourceError(f"{part} does not start again within {_PART_S:g} s", hint=f"logs are in {self.directory}/logs")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else enters or leaves."""
        with (self.directory / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        (self.directory / "ready.json").unlink(missing_ok=True)  # of one whose guard was killed
        (self.directory / "settings.json").write_text(json.dumps(_settings(self.directory, self.built)))
        log = self.directory / "guard.log"
        with log.open("wb") as stream:
            argv = [sys.executable, "-m", "cluster.guard", str(self.directory)]
            self._guard = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )
        until(lambda: self._ready() or self._guard.poll() is not None, _START_S)
        if not self._ready():
            raise ResourceError(f"the cluster did not start:\n{log.read_text()[-2000:]}", hint=f"logs are in {self.directory}/logs")

    def _ready(self) -> bool:
        return (self.directory / "ready.json").exists() and self._alive()

    def _alive(self) -> bool:
        return _locked(self.directory / "alive", fcntl.LOCK_SH)

    def _used(self) -> bool:
        """Others hold it, and the guard isn't ending it."""
        users = self.directory / "users"
        return _locked(users, fcntl.LOCK_EX) and not _locked(users, fcntl.LOCK_SH)


def _locked(path: Path, kind: int) -> bool:
    """Whether such a lock can't be had now."""
    if not path.exists():
        return False
    with path.open("r") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _settings(directory: Path, built: build.Built) -> dict[str, object]:
    programs = {name: str(path) for name, path in built.programs.items()}
    libraries = [apt.library_path(built.debian).replace("{home}", str(built.debian.parent))]
    libraries += [find(tool).env.get("LD_LIBRARY_PATH", "") for tool in ("nft", "ip")]
    return {
        "name": f"envctl-cluster-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}", "directory": str(directory),
        "programs": programs | {"containerd": f"{built.debian}/usr/bin/containerd"}, "debian": str(built.debian),
        "images": [str(path) for path in built.images.values()], "pause": build.PAUSE,
        "path": _path(built), "began": time.monotonic(), "library_path": ":".join(filter(None, libraries)),
    }


def _path(built: build.Built) -> str:
    """Where programs are found on the node: ours first."""
    tools = [find("nft").programs["nft"].parent, find("ip").programs["ip"].parent, built.programs["kubectl"].parent]
    own = [built.debian / place for place in ("usr/bin", "usr/sbin")]
    return ":".join(map(str, [*own, *tools, *(Path("/", place) for place in ("usr/sbin", "usr/bin", "sbin", "bin"))]))


def _output(argv: Sequence[str], stdin: str | IO[bytes] | None, timeout_s: float, env: dict[str, str]) -> str:
    with tempfile.TemporaryFile() as given:
        if isinstance(stdin, str):
            given.write(stdin.encode())
            given.seek(0)
        stream = given if isinstance(stdin, str) else stdin or subprocess.DEVNULL
        done = subprocess.run(argv, stdin=stream, capture_output=True, text=True, check=False, timeout=timeout_s, env={**os.environ, **env})
    if done.returncode:
        raise ResourceError(f"`{' '.join(argv[-4:])}` ended with status {done.returncode}: {(done.stderr + done.stdout).strip()}")
    return done.stdout
