"""Processes beside the nodes that keep a fault acting in one life of a node, for as long as they are told to.

Such a module says `ok` when it acts; each line that it reads is a new lease, in seconds.  When the lease has run out, or nobody is there any
more to renew it, it ends the fault and itself.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from envctl.errors import CapabilityError, DeadlineError, ResourceError
from envctl.substrates.base import Process, Reach

ASKED_S = 20.0
BEGUN_S = 10.0


class Leased:
    """One of them; `main` is the main process of the node as it lives now."""

    def __init__(self, reach: Reach, module: str, main: int, *arguments: str) -> None:
        stdin, self._tell = os.pipe()
        said, stdout = os.pipe()
        try:
            self._process = reach.popen(None, [*reach.own, "-m", module, str(main), *arguments], stdin=stdin, stdout=stdout)
        finally:
            os.close(stdin)
            os.close(stdout)
        self.main, self._module, self._said = main, module, said

    def begun(self) -> bool:
        """Waits until it acts; False when it can't.  Raises ResourceError when it says nothing for BEGUN_S seconds."""
        if not select.select([self._said], [], [], BEGUN_S)[0]:
            raise ResourceError(f"{self._module} does not answer")
        return bool(os.read(self._said, 4096))

    def renew(self, lease_s: float) -> bool:
        """Gives it another lease; False when it has ended."""
        if self._process.poll() is not None:
            return False
        try:
            os.write(self._tell, f"{lease_s}\n".encode())
        except BrokenPipeError:
            return False
        return self.begun()

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self._process.signal(number)

    def end(self) -> None:
        """Lets go of it, and waits until it has ended the fault."""
        os.close(self._tell)
        os.close(self._said)
        _wait(self._process, self._module)


def asked(reach: Reach, module: str, main: int, *arguments: str) -> str:
    """What it says when it is asked once; nothing of a node that has ended.  Raises CapabilityError, with its words."""
    said, stdout = os.pipe()
    process = reach.popen(None, [*reach.own, "-m", module, str(main), *arguments], stdout=stdout, stderr=stdout)
    os.close(stdout)
    try:
        text = _all(said)
    finally:
        os.close(said)
    if status := _wait(process, module):
        raise CapabilityError(text.strip() or f"{module} ended with {status}")
    return text


def _all(said: int) -> str:
    """What comes until nobody can say any more, or ASKED_S seconds have passed."""
    parts, deadline = [b""], time.monotonic() + ASKED_S
    while select.select([said], [], [], max(0.0, deadline - time.monotonic()))[0] and (part := os.read(said, 1 << 16)):
        parts.append(part)
    return b"".join(parts).decode()


def _wait(process: Process, module: str) -> int:
    """Its exit status.  One that does not end is killed: raises ResourceError."""
    try:
        return process.wait(ASKED_S)
    except DeadlineError as error:
        with suppress(ResourceError):
            process.signal(signal.SIGKILL)
        raise ResourceError(f"{module} does not end") from error
