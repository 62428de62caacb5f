"""What is left to look at when an environment could not be brought up or seeded; written before anything is removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from envctl.errors import DeadlineError, EnvctlError, NoEnvironmentError, ResourceError
from envctl.model.plan import Plan
from envctl.model.published import environment_fields, plan_fields
from envctl.stack_provider.ground import Substrates, installed
from envctl.substrates.base import Reach

LARGEST = 64 << 20
LINES = 50_000


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

    Of each log the last `LINES` are kept; telemetry larger than `LARGEST` bytes is left out.  Of an environment that has ended
    there is no more than the first two.  Raises OSError.
    """
    home = plan.project / ".envctl"
    bundle = home / "runs" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}-{plan.env_id}-failed"
    bundle.mkdir(parents=True)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")
    substrate = substrates(plan.substrate)
    directory = substrate.directory(plan.env_id)
    notebook = substrate.notebook(directory)
    _write(bundle / "error.json", lambda: {"error": type(error).__name__, "message": error.message, "hint": error.hint})
    _write(bundle / "plan.json", lambda: plan_fields(plan))
    for component in plan.components:
        if said := notebook.read(f"{component}.provision.log"):
            _keep_log(bundle, f"{component}.provision", said.splitlines())
    with suppress(EnvctlError):
        _look(substrate.attach(directory), directory, bundle)
    return bundle


def _look(reach: Reach, directory: Path, bundle: Path) -> None:
    environment = reach.environment()
    _write(bundle / "status.json", lambda: {"format": "status/v1", **environment_fields(environment)})
    for node in environment.nodes:
        _keep_log(bundle, node.name, reach.log(node.name, tail=LINES))
    with suppress(FileNotFoundError):
        reach.fetch(directory / "telemetry", bundle / "telemetry", most=LARGEST)


def _keep_log(bundle: Path, name: str, lines: Iterable[str]) -> None:
    (bundle / "logs").mkdir(exist_ok=True)
    with (bundle / "logs" / f"{name}.log").open("w", encoding="utf-8") as log:
        log.writelines(f"{line}\n" for line in lines)


def _write(file: Path, fields: Callable[[], Mapping[str, object]]) -> None:
    with suppress(NoEnvironmentError):
        file.write_text(json.dumps(fields(), indent=2, default=str) + "\n", encoding="utf-8")
