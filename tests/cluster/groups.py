"""The control groups of a cluster: one tree of its name in every hierarchy, removed as a whole; its processes see it as the root.

Works on control groups of version 1 (one hierarchy a controller) and version 2 (one for all).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from envctl.waiting import until

_WORDS = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "nsdelegate", "memory_recursiveprot", "favordynmods"})


def hierarchies() -> dict[Path, tuple[str, str]]:
    """Where control groups are mounted: file system and its options.  A hierarchy of version 2 beside others has no controllers."""
    found: dict[Path, tuple[str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()
        if kind in {"cgroup", "cgroup2"}:
            told = [word for word in options.split(",") if word not in _WORDS and "agent" not in word]
            found[Path(before.split()[4])] = (kind, ",".join(told))
    first = {place: how for place, how in found.items() if how[0] == "cgroup"}
    return first or found


def make(name: str) -> None:
    """One group in every hierarchy.  (A v1 group can't take processes before it has processors and memory.)"""
    for place in hierarchies():
        group = place / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and (place / "cpuset.cpus").exists():
                (group / setting).write_text((place / setting).read_text())


def join(name: str, pid: int = 0) -> None:
    """A process (0: the caller) moves there."""
    for place in hierarchies():
        (place / name / "cgroup.procs").write_text(str(pid))


def settle(name: str) -> None:
    """In a control group namespace of its own, the caller moves out of the root, so that groups beneath it can get controllers.

    (In version 2, a group has processes, or groups with controllers; the caller's parent is moved by the guard.)
    """
    join(f"{name}/system")
    for place in hierarchies():
        control = place / name / "cgroup.subtree_control"
        wanted = " ".join(f"+{one}" for one in (place / name / "cgroup.controllers").read_text().split()) if control.exists() else ""
        if wanted and not until(partial(_written, control, wanted), 5):
            raise OSError(f"controllers can't be given to the groups in {place / name}")


def _written(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def mount_inside(sh: Callable[..., object]) -> None:
    """A /sys of the caller's network, with the hierarchies as its namespace shows them, in place of the machine's."""
    found = hierarchies()
    sh("umount", "--recursive", "--lazy", "/sys")
    mount = partial(sh, "mount")
    mount("-t", "sysfs", "sysfs", "/sys")
    if all(kind == "cgroup" for kind, _ in found.values()):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
    for place, (kind, options) in found.items():
        place.mkdir(exist_ok=True)
        mount("-t", kind, *(("-o", f"none,{options}" if "name=" in options else options) if options else ()), kind, place)
        for link in options.split(",") if "," in options else ():
            (place.parent / link).symlink_to(place.name)


def remove(name: str) -> bool:
    """Removes the groups, as far as they are empty of processes; whether all are gone."""
    trees = [place / name for place in hierarchies()]
    for tree in trees:
        for group, _, _ in os.walk(tree, topdown=False):
            with contextlib.suppress(OSError):
                Path(group).rmdir()
    return not any(tree.exists() for tree in trees)
