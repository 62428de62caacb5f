"""Has a Docker engine for as long as somebody is connected to `keeper.sock`, and leaves the machine as it was.

The engine runs in PID and mount namespaces of its own: they end with it, and with them every container, shim and mount, also
when this process is killed.  What is outside of them (bridges, iptables rules, settings of the kernel, control groups) is
noted in a file before it changes and restored from there: at the end, or by the next keeper.

The bridge and the address pool are at the upper end of a range that is kept for benchmarks: no network that works has them.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BRIDGE, ADDRESS, POOL = "envctl-docker", "198.19.255.1/24", "base=198.19.252.0/23,size=26"
GROUP = "envctl-docker"
BEFORE = Path("/run/envctl-docker.json")
START_S = 60.0
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
SETTINGS = (*Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"), FORWARD)
OURS = re.compile(rf"DOCKER|{BRIDGE}|\bbr-[0-9a-f]{{12}}\b|-s (\S+)/32 -d \1/32 .*MASQUERADE")
INSIDE = 'mount -t tmpfs tmpfs "$0/exec" && mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && exec docker-init -- "$@"'


def main(base: Path) -> None:
    """One engine, from the first use to the last."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    claim = claimed()
    restore()
    door = base / "keeper.sock"
    door.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        listener.listen(64)
        with engine(base) as host:
            last = serve(listener, host)
            door.unlink()
            listener.close()
    claim.close()
    if last:
        last.close()


def claimed() -> socket.socket:
    """The right to change this network: of one keeper at a time, whosever cache it works in.  Waits for it."""
    claim = socket.socket(socket.AF_UNIX)
    while not bound(claim, f"\0{BRIDGE}"):
        sys.stderr.write("waiting for another Docker engine of tests to end\n")
        time.sleep(1)
    return claim


def bound(one: socket.socket, address: str) -> bool:
    """Whether the address was free; the kernel frees it when its holder dies."""
    try:
        one.bind(address)
    except OSError:
        return False
    return True


def serve(listener: socket.socket, host: str) -> socket.socket | None:
    """Tells everyone who connects where the engine is; returns the last connection, once its other end has let go."""
    uses: set[socket.socket] = set()
    while ready := select.select([listener, *uses], [], [], None if uses else START_S)[0]:
        for one in ready:
            if one is listener:
                use, _ = listener.accept()
                with suppress(OSError):
                    use.sendall(f"{host}\n".encode())
                uses.add(use)
            elif len(uses) == 1:
                return one
            else:
                uses.remove(one)
                one.close()
    return None  # who started this has died before it could connect


@contextmanager
def engine(base: Path) -> Iterator[str]:
    """The engine, without containers, networks and volumes, but with all images it ever had."""
    host = f"unix://{base}/engine.sock"
    note()
    try:
        lay_bridge()
        FORWARD.write_text("1")  # where the engine does it itself, it also forbids all other forwarding
        with daemon(base, host) as process:
            wait(host, process)
            purge(host)
            yield host
            purge(host)
    finally:
        restore()
        shutil.rmtree(base / "exec", ignore_errors=True)
        for name in ("engine.sock", "docker.pid"):
            (base / name).unlink(missing_ok=True)


@contextmanager
def daemon(base: Path, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """dockerd in namespaces of its own; it has ended with the block."""
    (base / "exec").mkdir(exist_ok=True)
    (base / "docker.pid").unlink(missing_ok=True)
    shutil.rmtree(base / "root/network", ignore_errors=True)  # an earlier address of the bridge would come back
    namespaces = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--mount-proc", "--kill-child"]
    daemon: list[str | Path] = ["dockerd", "--data-root", base / "root", "--exec-root", base / "exec", "-p", base / "docker.pid", "-H", host]
    options = ["-b", BRIDGE, "--default-address-pool", POOL, "--cgroup-parent", f"/{GROUP}", "--exec-opt", "native.cgroupdriver=cgroupfs"]
    with (base / "dockerd.log").open("wb") as log:
        command: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", INSIDE, base, *daemon, *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)  # the first process of its namespace: all others die with it, before it is gone
        process.wait()


def wait(host: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not docker(host, "version", "--format", "{{.Server.Version}}"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("dockerd does not answer; see dockerd.log")
        time.sleep(0.1)


def docker(host: str, *argv: str) -> list[str]:
    return subprocess.run(["docker", "-H", host, *argv], capture_output=True, text=True, check=False).stdout.split()


def purge(host: str) -> None:
    """Everything but the images."""
    if containers := docker(host, "ps", "-aq", "--no-trunc"):
        docker(host, "rm", "-f", "-v", *containers)
    docker(host, "network", "prune", "-f")
    if volumes := docker(host, "volume", "ls", "-q"):
        docker(host, "volume", "rm", "-f", *volumes)


def lay_bridge() -> None:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", ADDRESS, "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def links() -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-j", "link", "show", "type", "bridge"))}


def rules() -> dict[str, list[str]]:
    """Lines of every table of iptables, as `iptables-save` writes them, without the counters of chains."""
    tables: dict[str, list[str]] = {}
    for line in run("iptables-save").splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:], [])
        elif line.startswith((":", "-A")):
            table.append(re.sub(r" \[.*\]$", "", line))
    return tables


def note() -> None:
    """What the machine has that the engine changes."""
    settings = {str(path): path.read_text() for path in SETTINGS}
    kept = {"links": sorted(links()), "rules": rules(), "settings": settings, "run": Path("/run/containerd").exists()}
    new = BEFORE.with_suffix(".new")
    new.write_text(json.dumps(kept))
    new.replace(BEFORE)


def restore() -> None:
    """The machine as it was noted.  What others changed meanwhile stays."""
    if not BEFORE.exists():
        return
    before = json.loads(BEFORE.read_text())
    for link in links() - set(before["links"]):
        if link == BRIDGE or re.fullmatch(r"br-[0-9a-f]{12}", link):
            run("ip", "link", "delete", link)
    for table, lines in rules().items():
        unrule(table, lines, set(before["rules"].get(table, ())))
    for path, value in before["settings"].items():
        Path(path).write_text(value)
    remove_groups()
    if not before["run"]:
        with suppress(OSError):
            Path("/run/containerd").rmdir()
    BEFORE.unlink()


def unrule(table: str, lines: list[str], before: set[str]) -> None:
    """Removes the engine's rules first, then its chains."""
    new = [line for line in lines if line not in before and OURS.search(line)]
    for line in new:
        if line.startswith("-A"):
            subprocess.run(f"iptables -w -t {table} -D{line[2:]}", shell=True, check=True, capture_output=True)
    for line in new:
        if line.startswith(":"):
            run("iptables", "-w", "-t", table, "-X", line[1:].split()[0])


def remove_groups() -> None:
    for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for directory, _, _ in os.walk(top / GROUP, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
