"""One command at a time works on an environment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envctl.errors import ResourceError
from envctl.waiting import until

WAIT_S = 10.0


def environments_directory(cache: Path) -> Path:
    """The directory that holds one directory for each environment."""
    return cache / "envs"


def cache_of(directory: Path) -> Path:
    """The cache in which an environment of that directory lives: ours, or another one."""
    return directory.parents[1]


@contextmanager
def hold(cache: Path, env_id: str, verb: str, *, wait_s: float = WAIT_S, progress: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock of an environment; the kernel gives it back when we die, however we die.

    Waits up to `wait_s` for another command.  Raises ResourceError that names the command that has it.
    """
    path = environments_directory(cache) / f"{env_id}.lock"
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


def owner(cache: Path, env_id: str) -> str:
    """The command that holds the lock, in words."""
    return _owner(environments_directory(cache) / f"{env_id}.lock")


def is_held(cache: Path, env_id: str) -> bool:
    """Whether a living command works on the environment right now."""
    path = environments_directory(cache) / f"{env_id}.lock"
    if not path.exists():
        return False
    descriptor = _try(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None and path.exists()


def sweep(cache: Path) -> None:
    """Removes the lock files that killed commands left behind."""
    for path in environments_directory(cache).glob("*.lock"):
        descriptor = _try(path)
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)
