"""Writes what `bench/bare.py` starts: the engines' nodes as shell scripts, none of it in the measured time."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from envctl.engines.base import Provision, Realisation
from envctl.model.environment import Mount, NodeSpec
from envctl.model.topology import Probe
from envctl.stack_provider.provider import INTAKE_PORT
from envctl.substrates.embedded import Embedded

SYSTEM = ("usr", "etc", "proc", "dev", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "sys")


def write(realisations: Sequence[Realisation], here: Path) -> None:
    """Scripts, mounts, names and components below `here`."""
    nodes = [node for each in realisations for node in each.nodes]
    addresses = {node.name: f"198.18.1.{number}" for number, node in enumerate(nodes, 1)}
    (here / "hosts").write_text("".join(f"{addresses[n.name]} {n.name} {n.component}\n" for n in nodes) + "127.0.0.1 localhost\n")
    _ground(here)
    for number, node in enumerate(nodes, 1):
        _node(node, addresses[node.name], number, here)
    components = [_intake(here), *(_component(each, addresses, here) for each in realisations)]
    (here / "components.json").write_text(json.dumps(components, default=str))


def _ground(here: Path) -> None:
    """One bridge, one root that all nodes share, and the names."""
    root, ip, mount = here / "root", _tool("ip"), _tool("mount")
    (here / "ground.ip").write_text(
        f"link set lo up\nlink add bare0 address 02:00:c6:12:00:01 type bridge\naddr add {Embedded.beside}/16 dev bare0\nlink set bare0 up\n"
    )
    lines, links = [f"{here}/hosts /etc/hosts none bind 0 0"], []
    for name in SYSTEM:
        source = Path("/", name)
        if source.is_symlink():
            links.append(f"ln -s {source.readlink()} {root}/{name}")
        elif source.is_dir():
            lines.append(f"{source} {root}/{name} none rbind,x-mount.mkdir 0 0")
    (here / "ground.fstab").write_text("\n".join(lines) + "\n")
    _script(here / "ground.sh", [
        f"{ip} -batch {here}/ground.ip", f"mkdir {root}", f"{mount} -t tmpfs bare {root}", *links,
        f"{mount} -a -T {here}/ground.fstab", f"mkdir -p {root}/data {root}/tmp {root}/app {root}/build {root}/config {root}/classes",
    ])


def _node(node: NodeSpec, address: str, number: int, here: Path) -> None:
    home, ip, mount = here / node.name, _tool("ip"), _tool("mount")
    (here / f"{node.name}.ip").write_text(
        f"link set lo up\nlink add eth0 type veth peer name n{number} netns 1\naddr add {address}/16 dev eth0\nlink set eth0 up\n"
    )
    own = (Mount(home / "data", "/data", writable=True), Mount(home / "tmp", "/tmp", writable=True))
    (here / f"{node.name}.fstab").write_text("".join(_line(each, here / "root") for each in _outermost_first((*own, *node.mounts))))
    copy = f"cp -a --reflink=auto {node.data} {home}/data" if node.data else f"mkdir {home}/data"
    command = " ".join(shlex.quote(word) for word in node.command)
    _script(here / f"{node.name}.sh", [
        f"mkdir {home} {home}/tmp", copy, f"{ip} -batch {here}/{node.name}.ip",
        f"{_tool('nsenter')} --net=/proc/1/ns/net {ip} link set n{number} master bare0 up",
        f"{mount} -a -T {here}/{node.name}.fstab",
        f"exec unshare --user --map-user=1000 --map-group=1000 --root={here}/root --wd={node.cwd} -- {command}",
    ])


def _line(each: Mount, root: Path) -> str:
    return f"{each.source} {root}{each.target} none bind,x-mount.mkdir{'' if each.writable else ',ro'} 0 0\n"


def _outermost_first(mounts: Iterable[Mount]) -> list[Mount]:
    return sorted(mounts, key=lambda each: each.target.count("/"))


def _component(each: Realisation, addresses: dict[str, str], here: Path) -> dict[str, object]:
    nodes = [
        {"name": n.name, "start": ("unshare", "--net", "--mount", "sh", here / f"{n.name}.sh"), "address": addresses[n.name],
         "ready": asdict(n.ready) if n.ready else None, "env": {"HOME": "/tmp", "LANG": "C.UTF-8", "HOSTNAME": n.name, **n.env}}
        for n in each.nodes
    ]
    return {"component": each.component, "needs": each.needs, "nodes": nodes, "provision": _work(each.provision)}


def _work(work: Provision | None) -> dict[str, object] | None:
    return {"command": (sys.executable, "-P", *work.arguments), "env": dict(work.env)} if work else None


def _intake(here: Path) -> dict[str, object]:
    """The telemetry intake is a process of the environment, too."""
    command = [sys.executable, "-m", "envctl.telemetry.intake", "--directory", str(here / "telemetry"), "--host", Embedded.beside]
    node = {"name": "intake", "start": command, "address": Embedded.beside, "ready": asdict(Probe("tcp", port=INTAKE_PORT)), "env": None}
    return {"component": "intake", "needs": (), "nodes": [node], "provision": None}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"the bare script needs {name}")
    return found


def _script(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(("set -e", *lines)) + "\n")
