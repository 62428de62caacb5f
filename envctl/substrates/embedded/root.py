"""The file system that a node sees: the machine's /usr and a minimal /etc read-only, its own /data and /tmp, nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from envctl.model.environment import Mount
from envctl.substrates.embedded import syscalls as sys
from envctl.substrates.embedded.identity import RESOLVER

RESOLV_CONF = f"nameserver {RESOLVER}\noptions timeout:2 attempts:2\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
_USER = "app:x:1000:1000:app:/tmp:/bin/sh\n"
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives", "ca-certificates", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "pki",
    "protocols", "services", "ssl", "timezone",
)
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SEALED = sys.ATTR_RDONLY | sys.ATTR_NOSUID | sys.ATTR_NODEV
_OWN = sys.MS_NOSUID | sys.MS_NODEV
_SCRATCH = "mode=1777,size=1g"  # is memory of the machine
_OWN_ATTRIBUTES = sys.ATTR_NOSUID | sys.ATTR_NODEV


@dataclass(frozen=True, slots=True)
class Root:
    """What goes into one node's root.  `base` is an empty directory that becomes the mount point."""

    base: Path
    hostname: str
    address: str
    data: Path
    mounts: tuple[Mount, ...]


def enter(root: Root) -> None:
    """Builds the root in the caller's own (new) mount and PID namespaces and pivots into it."""
    sys.mount("", "/", flags=sys.MS_REC | sys.MS_PRIVATE)
    base = root.base
    sys.mount("tmpfs", str(base), "tmpfs", _OWN, "mode=755,size=8m")
    for name in ("proc", "sys", "dev", "etc", "tmp"):
        (base / name).mkdir()
    for name in ("run", "var/run", "var/tmp"):
        _link(base / name, "/tmp")  # noqa: S108 - the node's own
    _system(base)
    _etc(base, root.hostname, root.address)
    _dev(base / "dev")
    sys.mount("tmpfs", str(base / "tmp"), "tmpfs", _OWN, _SCRATCH)
    _bind(root.data, base / "data", writable=True)
    for mount in sorted(root.mounts, key=lambda mount: mount.target.count("/")):
        _bind(mount.source, base / mount.target.lstrip("/"), writable=mount.writable)
    _proc(base / "proc")
    sys.restrict(str(base), sys.ATTR_RDONLY, recursive=False)
    os.chdir(base)
    sys.pivot_root_here()


def _proc(proc: Path) -> None:
    """/proc of the caller's PID namespace, with what speaks to the whole machine read-only."""
    # Before the pivot: the kernel grants a new /proc only where a whole one is in sight.
    sys.mount("proc", str(proc), "proc", _OWN | sys.MS_NOEXEC)
    for name in _PROC_READ_ONLY:
        if (path := proc / name).exists():
            sys.mount(str(path), str(path), flags=sys.MS_BIND | sys.MS_REC)
            sys.restrict(str(path), _SEALED)


def _bind(source: Path, target: Path, *, writable: bool = False, devices: bool = False) -> None:
    if not source.exists():
        raise FileNotFoundError(f"{source}, which should be mounted in the node, does not exist")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    sys.mount(str(source), str(target), flags=sys.MS_BIND | sys.MS_REC)
    if not devices:
        sys.restrict(str(target), _OWN_ATTRIBUTES if writable else _SEALED)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _system(base: Path) -> None:
    _bind(Path("/usr"), base / "usr")
    for name in _SYSTEM:
        source = Path("/", name)
        if source.is_symlink():
            _link(base / name, str(source.readlink()))
        elif source.is_dir():
            _bind(source, base / name)


def _etc(base: Path, hostname: str, address: str) -> None:
    etc = base / "etc"
    files = {
        "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\n{_USER}nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "group": "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n",
        "hostname": f"{hostname}\n",
        "hosts": f"127.0.0.1 localhost\n::1 localhost\n{address} {hostname}\n",
        "resolv.conf": RESOLV_CONF,
        "nsswitch.conf": NSSWITCH,
    }
    for name, text in files.items():
        (etc / name).write_text(text)
    for source in (*(Path("/etc", name) for name in _ETC), *Path("/etc").glob("java-*")):
        if source.is_symlink():
            _link(etc / source.name, str(source.readlink()))
        elif source.exists():
            _bind(source, etc / source.name)


def _dev(dev: Path) -> None:
    for name in _DEVICES:
        _bind(Path("/dev", name), dev / name, devices=True)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        _link(dev / name, f"/proc/self/fd{target}")
    (dev / "shm").mkdir()
    sys.mount("tmpfs", str(dev / "shm"), "tmpfs", _OWN, _SCRATCH)
    (dev / "pts").mkdir()
    sys.mount("devpts", str(dev / "pts"), "devpts", sys.MS_NOSUID | sys.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    _link(dev / "ptmx", "pts/ptmx")
