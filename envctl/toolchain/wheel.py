"""Programs that come as Python wheels, by pip, with the hashes of ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from envctl.errors import CapabilityError
from envctl.toolchain.client import run

_PINS = Path(__file__).parent / "wheels"
_SWITCHES = (
    "--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-compile", "--no-cache-dir", "--no-warn-script-location",
    "--progress-bar", "off", "--disable-pip-version-check",
)


def install(name: str, target: Path, say: Callable[[str], None]) -> None:
    """Unpacks the wheel pinned in `wheels/<name>.txt` into a directory.  Raises CapabilityError without pip, ResourceError."""
    if importlib.util.find_spec("pip") is None:
        raise CapabilityError(f"{sys.executable} has no pip", hint=f"{sys.executable} -m ensurepip")
    say("fetching the wheel by pip")
    run([sys.executable, "-m", "pip", "install", *_SWITCHES, "--target", target, "-r", _PINS / f"{name}.txt"], on_line=say)
