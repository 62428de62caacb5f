"""One command at a time works on an environment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envctl.errors import ResourceError
from envctl.toolchain.tool import cache_dir
from envctl.waiting import until

WAIT_S = 10.0


def environments_directory(beside: Path | None = None) -> Path:
    """The directory that holds a directory and the locks of each environment: ours, or the one around an environment that was found elsewhere.

    Ours is the same whatever the substrate (see `Substrate.directory`): an id is on one substrate at a time, and its lock is of them all.
    """
    return cache_dir() / "envs" if beside is None else beside.parent


@contextmanager
def hold(envs: Path, env_id: str, verb: str, *, wait_s: float = WAIT_S, progress: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock of an environment in the directory `envs` of environments; the kernel gives it back when we die, however we die.

    Waits up to `wait_s` for another command.  Raises ResourceError that names the command that has it.
    """
    path = envs / f"{env_id}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path, env_id, wait_s, progress) as descriptor:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"envctl {verb} (process {os.getpid()})".encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, env_id: str, wait_s: float, progress: Callable[[str], None] | None) -> Iterator[int]:
    held: list[int] = []
    told: list[str] = []

    def attempt() -> bool:
        descriptor = _try(path)
        if descriptor is None:
            if progress and not told:
                told.append(_owner(path))
                progress(f"waits for {told[0]}")
            return False
        held.append(descriptor)
        return True

    if not until(attempt, wait_s):
        raise ResourceError(f"{_owner(path)} is working on {env_id}", hint="wait until it has ended, or end it")
    try:
        yield held[0]
    finally:
        os.close(held[0])


def _try(path: Path) -> int | None:
    """A descriptor that holds the lock, or None; never of a file that its last holder has just removed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _owner(path: Path) -> str:
    try:
        return path.read_text() or "another envctl"
    except FileNotFoundError:
        return "another envctl"


def owner(envs: Path, env_id: str) -> str:
    """The command that holds the lock, in words."""
    return _owner(envs / f"{env_id}.lock")


def is_held(envs: Path, env_id: str) -> bool:
    """Whether a living command works on the environment right now."""
    path = envs / f"{env_id}.lock"
    if not path.exists():
        return False
    descriptor = _try(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None and path.exists()


def sweep(envs: Path) -> None:
    """Removes the lock files that killed commands left behind."""
    for path in envs.glob("*.lock"):
        descriptor = _try(path)
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)
