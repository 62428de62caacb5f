"""PID 1 of a cluster's namespaces: furnishes them, starts the parts, and forwards the way in; `python -m cluster.node SETTINGS LISTENER`.

What it and its children change is in namespaces of their own, in the cluster's directory, or in the cluster's control groups.
When it dies, the kernel ends everything else; when a part dies that was not told to rest, it ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import sethostname, socket

from cluster import groups, parts

from envctl.waiting import until

_BOOT_S = 90.0
_KERNEL = {  # what a kubelet sets for the whole machine; here it finds these values, and sets nothing
    "vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the cluster is made of: paths of the machine, which are the same inside."""

    name: str
    directory: str
    programs: Mapping[str, str]
    debian: str
    images: tuple[str, ...]
    pause: str
    path: str
    library_path: str
    began: float  # by the machine's monotonic clock


def main() -> None:
    """Boots, says so in `ready.json`, and stays until a part ends."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    way_in = socket(fileno=int(sys.argv[2]))
    groups.settle(settings.name)
    _furnish(Path(settings.directory))
    os.environ |= {"PATH": settings.path, "TMPDIR": "/run/tmp", "HOME": "/run/tmp"}
    os.environ.pop("KUBECONFIG", None)
    if settings.library_path:
        os.environ["LD_LIBRARY_PATH"] = settings.library_path
    _network()
    boot = Boot(settings, way_in)
    running = boot.run()
    while True:
        pid, status = os.waitpid(-1, 0)
        name = running.pop(pid, "")
        if name and not boot.comes_back(name):
            sys.exit(f"{name} ended with status {os.waitstatus_to_exitcode(status)}")


def _sh(*words: str | Path) -> str:
    """Runs a program to its end.  Raises with what it said when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(map(str, words))}` failed: {done.stderr or done.stdout}")
    return done.stdout


def _furnish(directory: Path) -> None:
    """The machine's files, read-only; fresh /proc, /sys and /run; a /var whose changes are gone afterwards."""
    _sh("mount", "--make-rshared", "/")  # among themselves: volumes that pods share are seen by others
    _sh("mount", "-t", "proc", "proc", "/proc")
    groups.mount_inside(_sh)
    _sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("over/new", "over/work", "tmp", "etc", "cluster"):
        Path("/run", name).mkdir(parents=True)
    _sh("mount", "--bind", directory, "/run/cluster")
    _sh("mount", "-t", "overlay", "-o", "lowerdir=/var,upperdir=/run/over/new,workdir=/run/over/work", "overlay", "/var")
    for name, place in (("containerd", "lib/containerd"), ("kubelet", "lib/kubelet"), ("pods", "log/pods"), ("volumes", "lib/volumes")):
        (parts.STATE / name).mkdir(exist_ok=True)
        Path("/var", place).mkdir(parents=True, exist_ok=True)
        _sh("mount", "--bind", parts.STATE / name, Path("/var", place))
    for name, value in _KERNEL.items():
        shown = Path("/run/etc", name.replace("/", "."))
        shown.write_text(value)
        _sh("mount", "--bind", shown, Path("/proc/sys", name))
    _sh("mount", "-o", "remount,bind,ro", "/")


def _network() -> None:
    """A network of its own, with nothing but the node's address, and a way to the services that filters can turn."""
    _sh("ip", "link", "set", "lo", "up")
    _sh("ip", "address", "add", f"{parts.NODE_IP}/32", "dev", "lo")
    _sh("ip", "route", "add", parts.SERVICES, "dev", "lo", "src", parts.NODE_IP)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    sethostname(parts.NODE)


class Boot:
    """Starts the parts, each as early as it can use what it needs."""

    def __init__(self, settings: Settings, way_in: socket) -> None:
        self._settings, self._way_in = settings, way_in
        self._commands = parts.commands(settings.programs)
        self._running: dict[int, str] = {}
        self._times: dict[str, float] = {}

    def run(self) -> dict[int, str]:
        """Returns the parts by their PIDs once the cluster is ready."""
        parts.write_keys()
        parts.write_files(Path(self._settings.debian), self._settings.pause)
        parts.write_credentials(self._way_in.getsockname()[1])
        parts.LOGS.mkdir(exist_ok=True)
        self._start("etcd", "containerd", "kube-apiserver")
        threading.Thread(target=lambda: asyncio.run(forward(self._way_in)), daemon=True).start()
        ask = asker()
        self._until("containerd", lambda: _sh("ctr", "version"))
        for archive in self._settings.images:
            _sh("ctr", "-n", "k8s.io", "images", "import", archive)
        self._until("api", lambda: ask("/readyz"))
        self._start("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "storage")
        apply = ("kubectl", f"--kubeconfig={parts.ETC}/admin.kubeconfig", "apply", "--validate=false", "-f", Path(__file__).with_name("objects.yaml"))
        self._until("objects", lambda: _sh(*apply))
        self._until("node", lambda: _is_true(ask(f"/api/v1/nodes/{parts.NODE}"), "Ready"))
        self._until("accounts", lambda: ask("/api/v1/namespaces/default/serviceaccounts/default"))
        self._until("resolver", lambda: _is_true(ask("/apis/apps/v1/namespaces/kube-system/deployments/coredns"), "Available"))
        _publish(parts.STATE / "ready.json", {"times": self._times})
        return self._running

    def _start(self, *names: str) -> None:
        for name in names:
            with (parts.LOGS / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(self._commands[name], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
            self._running[process.pid] = name
            process.returncode = 0  # PID 1 waits for it

    def comes_back(self, name: str) -> bool:
        """Has a part that was ended because it is to rest start anew when it has rested; False for one that ended by itself."""
        rests = parts.RESTS / name
        if not rests.exists():
            return False

        def start() -> None:
            until(lambda: bool(rests.read_text()), math.inf, poll_s=0.1)
            rests.unlink()
            self._start(name)

        threading.Thread(target=start, daemon=True).start()
        return True

    def _until(self, what: str, condition: Callable[[], object]) -> None:
        deadline, reason = time.monotonic() + _BOOT_S, ""
        while True:
            try:
                if condition():
                    break
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error)
            for pid, name in self._running.items():
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    sys.exit(f"{name} ended before `{what}` was ready")
            if time.monotonic() > deadline:
                sys.exit(f"`{what}` was not ready within {_BOOT_S:.0f} s: {reason}")
            time.sleep(0.05)
        self._times[what] = round(time.monotonic() - self._settings.began, 2)


def asker() -> Callable[[str], bytes]:
    """Asks the API server as the administrator: the body of an answer.  Raises OSError."""
    context = ssl.create_default_context(cafile=str(parts.PKI / "ca.crt"))
    headers = {"Authorization": f"Bearer {parts.token('admin')}"}

    def ask(path: str) -> bytes:
        request = urllib.request.Request(f"https://{parts.NODE_IP}:{parts.API_PORT}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return bytes(answer.read())

    return ask


def _is_true(answer: bytes, condition: str) -> bool:
    conditions = json.loads(answer).get("status", {}).get("conditions", [])
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


def _publish(path: Path, value: object) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)


async def forward(way_in: socket) -> None:
    """Every connection to the host's loopback becomes one to the API server; bytes are not looked at."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(parts.NODE_IP, parts.API_PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pour(reader, inner_writer), _pour(inner_reader, writer))
        writer.close()
        inner_writer.close()

    server = await asyncio.start_server(connect, sock=way_in)
    await server.serve_forever()


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
        target.write_eof()
        return
    target.close()


if __name__ == "__main__":
    main()
