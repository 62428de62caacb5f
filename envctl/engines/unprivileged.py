"""Running an engine's own tools while its data is prepared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from envctl.errors import ResourceError

_LAST_LINES = 20
_NOBODY = "65534"  # has a name on every machine, which initdb asks for


def not_root(argv: Sequence[str | Path]) -> list[str]:
    """The command as an ordinary user sees it.

    Engines refuse to run as root; root is mapped to nobody in a user namespace of the command's own (files stay its caller's).
    """
    words = [str(word) for word in argv]
    if os.geteuid():
        return words
    return ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--", *words]


def alone_in_network(argv: Sequence[str | Path]) -> list[str]:
    """The command in a network of its own, where only the loopback interface is, so that no port can collide."""
    words = [str(word) for word in argv]
    return ["unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]


def run(argv: Sequence[str | Path], *, what: str, env: Mapping[str, str], stdin: str = "", timeout_s: float = 120.0) -> str:
    """Runs a command to its end and returns its output.  Raises ResourceError, with the last lines, unless it exits 0."""
    try:
        answer = subprocess.run(
            [str(word) for word in argv], input=stdin, env=dict(env), text=True, errors="replace", check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"{what}: {error}") from error
    if answer.returncode:
        last = "\n".join(f"  {line}" for line in answer.stdout.splitlines()[-_LAST_LINES:])
        raise ResourceError(f"{what}: status {answer.returncode}\n{last}")
    return answer.stdout
