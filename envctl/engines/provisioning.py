"""How a provision starts and ends: work from `$ENVCTL_PROVISION`, errors as text and exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from envctl.errors import EnvctlError

W = TypeVar("W")


def main(form: Callable[..., W], provision: Callable[[W], None]) -> None:
    """Runs a provision and ends the process: 0, or the error's exit code with its message and hint on stderr."""
    given: dict[str, Any] = json.loads(os.environ["ENVCTL_PROVISION"])
    work = form(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
    try:
        provision(work)
    except EnvctlError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"{error.message}{hint}\n")
        sys.exit(error.exit_code)
