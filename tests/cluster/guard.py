"""Watches over a cluster from outside its namespaces: `python -m cluster.guard DIRECTORY`.  Removes it when nobody uses it.

Who uses the cluster holds a shared lock on `users`; the kernel lets go of it however its holder ends.  The guard holds a lock on
`alive` until nothing is left.  If the guard is killed, so is the cluster; its empty control groups are removed by the next one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from socket import create_server
from typing import IO

from cluster import groups

from envctl.waiting import until

_REMOVAL_S = 20.0
_PR_SET_PDEATHSIG = 1
_SPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child", "--propagation", "private")


def main() -> None:
    """Starts a cluster, and stays until it has ended and nothing of it is left."""
    directory = Path(sys.argv[1])
    name = json.loads((directory / "settings.json").read_text())["name"]
    with (directory / "alive").open("w") as alive, (directory / "users").open("r") as users:
        fcntl.flock(alive, fcntl.LOCK_EX)
        if not until(lambda: groups.remove(name), _REMOVAL_S):  # of a cluster whose guard was killed
            sys.exit(f"processes of an earlier cluster are still in the control groups {name}")
        _clear(directory)
        process = _start(directory, name)
        try:
            until(lambda: process.poll() is not None or _nobody(users), math.inf, poll_s=0.1)
        finally:
            for announcement in ("ready.json", "running.json", "kubeconfig"):
                (directory / announcement).unlink(missing_ok=True)
            process.kill()
            process.wait()
            gone = until(lambda: groups.remove(name), _REMOVAL_S)
            _clear(directory)
            if not gone:
                sys.exit(f"control groups are left: {name}")


def _start(directory: Path, name: str) -> subprocess.Popen[bytes]:
    groups.make(name)
    groups.make(f"{name}/system")
    prctl = ctypes.CDLL(None).prctl

    def become_part() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        groups.join(name)

    with create_server(("127.0.0.1", 0), backlog=512) as way_in:
        node = (sys.executable, "-m", "cluster.node", directory / "settings.json", str(way_in.fileno()))
        process = subprocess.Popen(["unshare", *_SPACES, *node], pass_fds=[way_in.fileno()], preexec_fn=become_part)  # noqa: PLW1509
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: process.poll() is not None or bool(children.read_text()), 10)
    groups.join(f"{name}/system", process.pid)
    running = {"guard": os.getpid(), "init": int(children.read_text().split()[0])}
    (directory / "running.json").write_text(json.dumps(running))
    return process


def _nobody(users: IO[str]) -> bool:
    """Whether nobody uses the cluster.  If so, newcomers wait until this process has ended."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(directory: Path) -> None:
    """Objects, volumes and keys are of one life; images stay."""
    for name in ("ready.json", "running.json"):
        (directory / name).unlink(missing_ok=True)
    for name in ("etcd", "kubelet", "pki", "pods", "volumes", "asked", "rests"):
        shutil.rmtree(directory / name, ignore_errors=True)


if __name__ == "__main__":
    main()
