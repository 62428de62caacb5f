"""Runs the package clients (apt-get, pip, mvn, go) so that their progress is seen and their errors are kept."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from envctl.errors import ResourceError

Progress = Callable[[str, str], None]
"""Called with a tool's name and what is being done for it, often; what is worth showing is for the display to say."""

_LAST_LINES = 15


def quiet(_tool: str, _doing: str) -> None:
    """Progress that nobody looks at."""


def run(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Runs a client to its end and returns its output (both streams).

    Raises ResourceError with the last lines of the output when it fails.  Ended with us when we are interrupted.
    """
    said: deque[str] = deque(maxlen=None if on_line is None else 200)
    with subprocess.Popen(
        [str(word) for word in argv], cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                if on_line and line.strip():
                    on_line(line.strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        words = " ".join(str(word) for word in argv[:3])
        raise ResourceError(f"`{words} …` failed with status {process.returncode}:\n" + "".join([*said][-_LAST_LINES:]).rstrip())
    return "".join(said)
