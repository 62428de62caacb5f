"""Processes beside the nodes that keep a fault acting in one life of a node, for as long as they are told to.

Such a module says `ok` when it acts; each line that it reads is a new lease, in seconds.  When the lease has run out, or nobody is there any
more to renew it, it ends the fault and itself.
"""

from __future__ import annotations

import os

from envctl.errors import CapabilityError, DeadlineError, ResourceError
from envctl.substrates.base import Reach

ASKED_S = 20.0


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
        self.main, self._said = main, os.fdopen(said)

    def begun(self) -> bool:
        """Waits until it acts; False when it can't."""
        return bool(self._said.readline())

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
        self._said.close()
        self._process.wait(ASKED_S)


def asked(reach: Reach, module: str, main: int, *arguments: str) -> str:
    """What it says when it is asked once; nothing of a node that has ended.  Raises CapabilityError, with its words."""
    said, stdout = os.pipe()
    process = reach.popen(None, [*reach.own, "-m", module, str(main), *arguments], stdout=stdout, stderr=stdout)
    os.close(stdout)
    with os.fdopen(said) as lines:
        text = lines.read()
    try:
        status = process.wait(ASKED_S)
    except DeadlineError as error:
        raise ResourceError(f"{module} does not end") from error
    if status:
        raise CapabilityError(text.strip() or f"{module} ended with {status}")
    return text
