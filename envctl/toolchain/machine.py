"""Whether this machine can hold environments at all: by trying, and where that fails, why and what lifts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc")
_TRY_S = 20.0


@dataclass(frozen=True, slots=True)
class Lack:
    """Something this machine lacks, and the one step that lifts it."""

    what: str
    step: str

    def __str__(self) -> str:
        return f"{self.what}: {self.step}"


@dataclass(frozen=True, slots=True)
class Signs:
    """What the kernel says about user namespaces; a setting that this kernel does not have is None."""

    said: str  # the error of the attempt
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restrict_unprivileged_userns: int | None = None
    seccomp: int = 0  # of this process: 2 means that system calls are filtered
    container: bool = False


def machine_problems() -> tuple[Lack, ...]:
    """What stops environments on this machine; empty when nothing does.  Takes a few milliseconds: it makes one and drops it."""
    if sys.platform != "linux":
        return (Lack(f"environments are made of Linux namespaces, and this is {sys.platform}", "use a Linux machine or virtual machine"),)
    try:
        said = attempt(("true",))
    except FileNotFoundError:
        return (Lack("the program `unshare` is missing", "install the package `util-linux`"),)
    return (diagnose(_signs(said)),) if said else ()


def attempt(command: Iterable[str], env: dict[str, str] | None = None) -> str:
    """Runs a command in new namespaces of an ordinary user; returns its error, empty when it succeeded.

    Raises FileNotFoundError without util-linux.
    """
    return answer(command, env)[1]


def answer(command: Iterable[str], env: dict[str, str] | None = None) -> tuple[str, str]:
    """What a command says in new namespaces of an ordinary user, and its error as `attempt` gives it."""
    try:
        done = subprocess.run([*_UNSHARE, *command], capture_output=True, text=True, timeout=_TRY_S, check=False, env=env)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_TRY_S:.0f} s"
    return done.stdout.strip(), (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def diagnose(signs: Signs) -> Lack:
    """Why user namespaces do not work here."""
    if signs.max_user_namespaces == 0:
        return Lack("this kernel allows no user namespaces", "sudo sysctl -w user.max_user_namespaces=15000")
    if signs.unprivileged_userns_clone == 0:
        return Lack("ordinary users may not make user namespaces here", "sudo sysctl -w kernel.unprivileged_userns_clone=1")
    if signs.container or signs.seccomp == 2:  # not every container can be told by its files
        filtered = " (its system calls are filtered)" if signs.seccomp == 2 else ""
        options = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        return Lack(f"this container may not make user namespaces{filtered}: {signs.said}", f"start the container with `{options}`")
    if signs.apparmor_restrict_unprivileged_userns:
        step = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return Lack("AppArmor restricts the user namespaces of ordinary users here", step)
    return Lack(f"user namespaces do not work here: {signs.said}", "run `" + " ".join((*_UNSHARE, "true")) + "` to see the error")


def _signs(said: str) -> Signs:
    return Signs(
        said=said,
        max_user_namespaces=_setting("user/max_user_namespaces"),
        unprivileged_userns_clone=_setting("kernel/unprivileged_userns_clone"),
        apparmor_restrict_unprivileged_userns=_setting("kernel/apparmor_restrict_unprivileged_userns"),
        seccomp=_seccomp(),
        container=Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
    )


def _setting(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


def _seccomp() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Seccomp:"):
            return int(line.split()[1])
    return 0
