"""Puts partitions back when nobody holds them elsewhere any more: `python -m … BOOTSTRAP FILE`.

It is two processes, so that one that is killed leaves another.  It ends once the file is gone, or when the file has not been renewed for as long as it says: then it heals what the file tells.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from envctl.errors import ResourceError
from envctl.faults.placement import Held

LOOK_S = 0.2
AGAIN_S = 2.0


def main(argv: list[str]) -> None:
    """Has a process wait, and another one take its place if that is killed."""
    while child := os.fork():
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return
    _guard(*argv)


def _guard(bootstrap: str, path: str) -> None:
    held, renewed, deadline = Held(Path(path)), 0, 0.0
    while (said := held.read()) is not None:
        if said["renewed"] != renewed:
            renewed, deadline = said["renewed"], time.monotonic() + said["lease_s"]
        if time.monotonic() >= deadline:
            try:
                held.restore(bootstrap)
                break
            except ResourceError:  # a broker is away: as long as anything is held, it is tried again
                time.sleep(AGAIN_S)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1:])
