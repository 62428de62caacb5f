"""`python -m envctl.runner RUN_DIRECTORY SUBSTRATE ENVIRONMENT_DIRECTORY`, started inside the environment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from envctl import plugins
from envctl.errors import EnvctlError
from envctl.runner.walk import ABANDONED, CANCELLED, Run, failed, load_inputs


class Cancelled:
    """Whether, and why, the run is to end early; may be known before there is a run."""

    def __init__(self) -> None:
        self._reason = ""
        self._stop: Callable[[str], None] = lambda _: None

    def by(self, reason: str) -> None:
        """It is; the first reason counts."""
        self._reason = self._reason or reason
        self._stop(self._reason)

    def tell(self, stop: Callable[[str], None]) -> None:
        """Whom to tell from now on."""
        self._stop = stop
        if self._reason:
            stop(self._reason)


def _watch_lifeline(cancelled: Cancelled) -> None:
    """A byte on standard input cancels.  Its end means that whoever started the run has died: nobody would judge what is hurt."""
    said = b""
    with suppress(OSError):
        said = os.read(0, 1)
    cancelled.by(CANCELLED if said else ABANDONED)


def main(argv: list[str]) -> int:
    """Walks the scenario that was prepared in the run's directory.  0: the record is whole; else the error's exit code."""
    directory = Path(argv[0])
    cancelled = Cancelled()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancelled.by(CANCELLED))
    signal.signal(signal.SIGHUP, lambda *_: cancelled.by(ABANDONED))
    threading.Thread(target=_watch_lifeline, args=(cancelled,), name="lifeline", daemon=True).start()
    try:
        manifest, topology, scenario = load_inputs(directory)
        manifest = replace(manifest, clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns())
        manifest.save(directory)
        reach = plugins.load("envctl.substrates", argv[1]).attach(Path(argv[2]))
        run = Run(directory, reach, topology, scenario, manifest)
        cancelled.tell(run.stop)
        run.walk()
    except EnvctlError as error:
        failed(directory, error)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
