"""A Docker engine for tests: the one that answers here, otherwise one of our own, shared by all test processes of the machine.

`keeper.py` is the process that has the engine.  A connection to its socket is one use; it ends the engine with the last, so
nothing outlives the tests, however they end.  Images stay in the user's cache.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from envctl.toolchain.tool import cache_dir

KEEPER = Path(__file__).with_name("keeper.py")
START_S, STOP_S = 90.0, 60.0
_NEEDED = ("dockerd", "docker", "docker-init", "iptables", "ip")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers.  `ours`: it has nothing but what tests put there."""

    host: str
    ours: bool

    def docker(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command-line client, with its output; its error is raised with what it said."""
        env = {**os.environ, "DOCKER_HOST": self.host}
        done = subprocess.run(["docker", *map(str, argv)], env=env, text=True, capture_output=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(map(str, argv[:3]))}: {done.stdout[-1500:]}{done.stderr[-3000:]}")
        return done


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """An engine for as long as the block lasts; DOCKER_HOST says where it is."""
    if not (found := _answering()):
        _install()
        found = _answering()  # an installation may start the machine's own
    with _at(found, ours=False) if found else _kept() as engine:
        yield engine


@contextmanager
def _at(host: str, *, ours: bool) -> Iterator[Engine]:
    own = {"DOCKER_CONFIG": str(cache_dir() / "docker-engine" / "client")} if ours else {}  # and nothing in the user's
    with patch.dict(os.environ, DOCKER_HOST=host, **own):
        yield Engine(host, ours)


def _answering() -> str | None:
    """The address of the engine that the machine's client would use, if there is one and it answers."""
    if not shutil.which("docker"):
        return None
    asked = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=30, check=False)
    if asked.returncode:
        return None
    context = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    return subprocess.run(context, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _install() -> None:
    if all(map(shutil.which, _NEEDED)):
        return
    assert os.geteuid() == 0, "no Docker engine answers, and installing one needs root"
    assert shutil.which("apt-get"), "no Docker engine answers, and installing one needs apt-get"
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "docker.io", "iptables", "iproute2"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(install, env=env, capture_output=True, check=False).returncode:  # the package lists may be missing or stale
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
        subprocess.run(install, env=env, check=True)


@contextmanager
def _kept() -> Iterator[Engine]:
    assert os.geteuid() == 0, "no Docker engine answers, and starting one needs root"
    base = cache_dir() / "docker-engine"
    base.mkdir(exist_ok=True)
    use, host = _use(base)
    with use, _at(host, ours=True) as engine:
        yield engine
        use.shutdown(socket.SHUT_WR)
        use.settimeout(STOP_S)
        use.recv(1)  # the end of the stream: it has been removed, or others use it


def _use(base: Path) -> tuple[socket.socket, str]:
    """A use of the keeper and the engine's address; starts a keeper where none is."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with (base / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            use = _connected(base) or _started(base, deadline)
        use.settimeout(START_S)
        with suppress(ConnectionError):
            if answer := use.makefile().readline().strip():
                return use, answer
        use.close()  # it was just ending
    raise AssertionError(f"no Docker engine came up; {base}/dockerd.log ends with\n{_tail(base / 'dockerd.log')}")


def _connected(base: Path) -> socket.socket | None:
    one = socket.socket(socket.AF_UNIX)
    try:
        one.connect(str(base / "keeper.sock"))
    except OSError:
        one.close()
        return None
    return one


def _started(base: Path, deadline: float) -> socket.socket:
    with (base / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen([sys.executable, KEEPER, base], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    while not (use := _connected(base)):
        assert keeper.poll() is None, f"the keeper of the Docker engine ended:\n{_tail(base / 'keeper.log')}"
        assert time.monotonic() < deadline, f"the keeper of the Docker engine does not answer:\n{_tail(base / 'keeper.log')}"
        time.sleep(0.05)
    return use


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
