"""`python -m envctl.runner RUN_DIRECTORY SUBSTRATE ENVIRONMENT_DIRECTORY`, started inside the environment."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from envctl import plugins
from envctl.errors import EnvctlError
from envctl.runner.walk import Run, failed, load_inputs


def main(argv: list[str]) -> int:
    """Walks the scenario that was prepared in the run's directory.  0: the record is whole; else the error's exit code."""
    directory = Path(argv[0])
    try:
        manifest, topology, scenario = load_inputs(directory)
        manifest = replace(manifest, clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns())
        manifest.save(directory)
        reach = plugins.load("envctl.substrates", argv[1]).attach(Path(argv[2]))
        run = Run(directory, reach, topology, scenario, manifest)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: run.stop("cancelled"))
        run.walk()
    except EnvctlError as error:
        failed(directory, error)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
