"""The few system calls that Python 3.11 has no name for.  Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC = 0x2, 0x4, 0x8, 0x1000, 0x4000
MS_PRIVATE, MS_SLAVE = 1 << 18, 1 << 19
MNT_DETACH = 2

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x1, 0x2, 0x4

_AT_FDCWD, _AT_RECURSIVE, _MOUNT_SETATTR = -100, 0x8000, 442
_PR_SET_NO_NEW_PRIVS, _KEYCTL_JOIN_SESSION = 38, 1
_KEYCTL = {"x86_64": 250, "aarch64": 219}  # libc has no name for it

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = (("set", ctypes.c_uint64), ("clr", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns", ctypes.c_uint64))


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """New namespaces for the caller (a PID namespace: for its next child)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """The caller enters the namespace that `fd` refers to."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """One file system, or a part of one (`MS_BIND`), appears at `target`; empty texts are null pointers."""
    arguments = [text.encode() or None for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None), f"mount {source or kind} at {target}")


def unmount(target: str) -> None:
    """The file system at `target` disappears there; it ends when nobody uses it any more."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def restrict(target: str, attributes: int, *, recursive: bool = True) -> None:
    """Adds `ATTR_…` to the mount at `target` and those beneath it; mount_setattr(2), Linux ≥ 5.12."""
    attr = _MountAttr(set=attributes)
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    result = _libc.syscall(ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, target.encode(), flags, ctypes.byref(attr), size)
    _check(result, f"mount_setattr {target}")


def pivot_root_here() -> None:
    """Makes the current directory (a mount point) the root and lets go of the old one; see pivot_root(2), "pivot_root(".", ".")"."""
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def no_new_privileges() -> None:
    """No later exec can gain anything: setuid bits and file capabilities stop working; prctl(2)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def leave_session_keyring() -> None:
    """Replaces the inherited session keyring, which may hold the user's keys, by an empty one; keyctl(2)."""
    machine = os.uname().machine
    if machine not in _KEYCTL:
        raise OSError(f"the system call keyctl has no known number on {machine}")
    _check(_libc.syscall(ctypes.c_long(_KEYCTL[machine]), ctypes.c_long(_KEYCTL_JOIN_SESSION), None), "keyctl")
