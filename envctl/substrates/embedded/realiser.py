"""Makes and ends cells and nodes."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal as signals
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from envctl.errors import CapabilityError, LeakError, NoEnvironmentError, ResourceError
from envctl.substrates.embedded import census
from envctl.substrates.embedded.identity import MARKER, stranger_uid
from envctl.substrates.keeper import FIRST_LEASE_S
from envctl.substrates.locked import locked

if TYPE_CHECKING:
    from envctl.model.environment import Node, NodeSpec
    from envctl.substrates.embedded.reach import CellReach

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from envctl.substrates.embedded.boot import main; main()"
_SOURCES = Path(__file__).parents[3]


class CellRealiser:
    """Makes, adopts and ends the cell of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    @cached_property
    def reach(self) -> CellReach:
        """Into the cell; nothing of it is needed to end one."""
        from envctl.substrates.embedded.reach import CellReach

        return CellReach(self.directory)

    def create_environment(self, env_id: str, *, ttl_s: float, labels: Mapping[str, str]) -> None:
        """Makes the empty environment, or adopts the living one."""
        if env_id != self.directory.name:
            raise ValueError(f"{env_id!r} does not live in {self.directory}")
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.directory.parent) as lock:
            if not self.reach.is_alive():
                _end(self.directory)
                self._boot(env_id, lock)
        self.reach.renew(ttl_s, labels)

    def _boot(self, env_id: str, lock: int) -> None:
        """Starts the first process; it shares the lock, so that nobody else starts one even when we are killed right now."""
        self.directory.mkdir(mode=0o700)
        (self.directory / "logs").mkdir()
        log = self.directory / "logs" / "cell.log"
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(_SOURCES), str(lock), MARKER, env_id, str(self.directory)]
        with log.open("wb") as stderr:
            first = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True, pass_fds=(lock,),
            )
            status = first.wait(FIRST_LEASE_S)
        if status:
            said = log.read_text(errors="replace").strip().splitlines()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise CapabilityError(
                f"the cell of {env_id} could not be made: {said[-1] if said else f'exit status {status}'}",
                hint="`envctl doctor` checks whether this machine lets ordinary users make namespaces",
            )

    def start_node(self, spec: NodeSpec, *, ready_timeout_s: float) -> Node:
        """Starts a node, or adopts or replaces the one of that name; waits until ready."""
        _check_readable(spec)
        return self.reach.start(spec, ready_timeout_s)

    def stop_node(self, name: str) -> None:
        """Ends a node and removes its data; one that is not there (or an environment that is not) is fine."""
        with contextlib.suppress(NoEnvironmentError):
            self.reach.ask("stop", name=name)

    def end_environment(self) -> None:
        """Ends everything and waits until nothing is left.  Raises LeakError with the list of what is."""
        if not self.directory.parent.exists():
            return
        with locked(self.directory.parent):
            _end(self.directory)
        if left := census.left(self.directory):
            raise LeakError(f"{self.directory.name} has left something behind:\n  " + "\n  ".join(left))


def _end(directory: Path) -> None:
    """Kills the cell, removes its directory, and waits for its last process, which the kernel takes a while to take apart."""
    deadline = time.monotonic() + 10.0
    while pids := census.cells(directory):
        dying = [handle for pid in pids for handle in _killed(pid)]
        _remove(directory)
        for handle in dying:
            select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            os.close(handle)
        if time.monotonic() > deadline:
            break
    _remove(directory)  # where it was dead already; and what was written in its last moment


def _killed(pid: int) -> Iterator[int]:
    """A handle of a process that was killed; none of one that has gone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        with contextlib.suppress(ProcessLookupError):
            signals.pidfd_send_signal(handle, signals.SIGKILL)
        yield handle


def _remove(directory: Path) -> None:
    if census.removable(directory):
        gone = directory.with_name(f".gone-{directory.name}-{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(FileNotFoundError):  # it has ended by itself just now
            directory.rename(gone)
    for rest in directory.parent.glob(f".gone-{directory.name}-*"):
        if census.removable(rest):
            _remove_tree(rest)


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # a node made directories that even their owner may not enter
        subprocess.run(["chmod", "-R", "u+rwX", str(path)], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(path, ignore_errors=True)


def _check_readable(spec: NodeSpec) -> None:
    """Nodes of root are not root: they see of a mount only what everybody may read."""
    for mount in spec.mounts if stranger_uid() is not None else ():
        needed = 0o005 if mount.source.is_dir() else 0o004
        if mount.source.exists() and mount.source.stat().st_mode & needed != needed:
            raise ResourceError(
                f"{spec.name} could not read {mount.source}: nodes run as an ordinary user, and only root may read it",
                hint=f"chmod -R o+rX {mount.source}, or run envctl as an ordinary user",
            )
