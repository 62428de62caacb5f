"""What is left to look at when an environment could not be brought up or seeded; written before anything is removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from envctl.errors import DeadlineError, EnvctlError, NoEnvironmentError, ResourceError
from envctl.model.plan import Plan
from envctl.model.published import environment_fields, plan_fields
from envctl.stack_provider.ground import Substrates, installed

LARGEST = 64 << 20


@contextmanager
def kept(plan: Plan, substrates: Substrates = installed) -> Iterator[None]:
    """Leaves a bundle when what is done inside fails or times out, and names it in the error's hint."""
    try:
        yield
    except (ResourceError, DeadlineError) as error:
        with suppress(OSError):  # a full disk must not hide what went wrong
            bundle = write_bundle(plan, error, substrates)
            error.hint = "\n".join(filter(None, (error.hint, f"logs, states and the plan are in {bundle}")))
        raise


def write_bundle(plan: Plan, error: EnvctlError, substrates: Substrates) -> Path:
    """`.envctl/runs/TIME-ENV-failed/` of the project: error.json, plan.json, status.json, logs/ and telemetry/ (raw).

    What is larger than `LARGEST` bytes is left out.

    An environment that has ended has no status; its logs are there as long as its directory is.  Raises OSError.
    """
    home = plan.project / ".envctl"
    bundle = home / "runs" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}-{plan.env_id}-failed"
    bundle.mkdir(parents=True)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")
    substrate = substrates(plan.substrate)
    directory = substrate.directory(plan.env_id)
    _write(bundle / "error.json", lambda: {"error": type(error).__name__, "message": error.message, "hint": error.hint})
    _write(bundle / "plan.json", lambda: plan_fields(plan))
    _write(bundle / "status.json", lambda: {"format": "status/v1", **environment_fields(substrate.attach(directory).environment())})
    for kind in ("logs", "telemetry"):
        if _size(directory / kind) <= LARGEST:
            shutil.copytree(directory / kind, bundle / kind)
    return bundle


def _size(directory: Path) -> float:
    """Bytes of all files below; infinite when there is no such directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) if directory.is_dir() else float("inf")


def _write(file: Path, fields: Callable[[], Mapping[str, object]]) -> None:
    with suppress(NoEnvironmentError):
        file.write_text(json.dumps(fields(), indent=2, default=str) + "\n", encoding="utf-8")
