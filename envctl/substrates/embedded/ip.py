"""iproute2: many changes in one call."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def batch(lines: Sequence[str]) -> None:
    """Runs lines of iproute2.  Raises OSError with what it said."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")
