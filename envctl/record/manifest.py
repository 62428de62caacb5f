"""A run's directory as it begins: `run.json`, which says what runs, and copies of every input, saved before anything else."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from envctl import __version__
from envctl.errors import UsageError
from envctl.model.environment import Node
from envctl.model.plan import Plan, Selection
from envctl.model.scenario import Scenario
from envctl.record.writer import publish

FORMAT = "run/v1"
MANIFEST = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """What ran, saved as `run.json` when the run starts.

    `clock_ns` is CLOCK_MONOTONIC and `epoch_ns` the wall clock at the run's start: an event's `at_ns` counts from both, which
    places spans and broker timestamps on the run's clock.  `machine` tells in general terms where it ran.
    """

    id: str
    scenario: str
    stack: str
    env_id: str
    commit: str
    branch: str
    rng_seed: int
    started_at: float  # Unix time
    clock_ns: int
    epoch_ns: int
    scenario_file: str = ""  # relative to the project, for the command that reproduces the run
    components: tuple[Selection, ...] = ()
    stubbed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: str = ""
    repetition: int = 1
    machine: Mapping[str, str | int | float] = field(default_factory=dict)

    def save(self, run_dir: Path) -> None:
        """Writes `run.json` atomically."""
        publish(run_dir / MANIFEST, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, run_dir: Path) -> RunManifest:
        """Reads `run.json`.  Raises UsageError when it is missing, broken or of another version."""
        path = run_dir / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise UsageError(f"{path} is not of format {FORMAT}", hint="it was written by another version of envctl")
            data["components"] = tuple(Selection(s["component"], s["why"], tuple(s["because"])) for s in data["components"])
            data["nodes"] = tuple(Node(**node) for node in data["nodes"])
            data["stubbed"], data["left_out"] = tuple(data["stubbed"]), tuple(data["left_out"])
            return cls(**data)
        except FileNotFoundError as error:
            raise UsageError(f"{run_dir} holds no run", hint="runs are in .envctl/runs/") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path} can't be read: {error!r}") from error


def new_run(plan: Plan, scenario: Scenario, nodes: tuple[Node, ...], versions: Mapping[str, str]) -> Path:
    """Makes the directory of a run that begins now, `.envctl/runs/TIME-SCENARIO` of the plan's project, with manifest and inputs.

    `versions` are those of the components' programs.  Raises OSError.
    """
    from envctl.planner.changes import repository

    now = datetime.now(UTC)
    run_id = f"{now:%Y-%m-%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{scenario.name}"
    home = plan.project / ".envctl"
    directory = home / "runs" / run_id
    (directory / "inputs").mkdir(parents=True)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")
    _copy_inputs(plan, scenario, directory / "inputs")
    found = repository(plan.project)
    RunManifest(
        id=run_id, scenario=scenario.name, stack=plan.topology.name, env_id=plan.env_id, commit=found.commit, branch=found.ref,
        rng_seed=scenario.rng_seed, started_at=now.timestamp(), clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns(),
        scenario_file=_relative(scenario.file, plan.project), components=plan.selected, stubbed=plan.stubbed, left_out=plan.left_out,
        nodes=nodes, versions={"envctl": __version__, "python": platform.python_version()} | dict(versions), seed=scenario.seed,
        machine={"system": platform.system(), "kernel": platform.release().split("-")[0], "cores": os.cpu_count() or 0},
    ).save(directory)
    return directory


def _copy_inputs(plan: Plan, scenario: Scenario, inputs: Path) -> None:
    """Topology, contracts, scenario and traffic as they are now, under the names that reading a record expects."""
    from envctl.spec.contracts import contract_files
    from envctl.spec.manifests import save_declared

    shutil.copy(plan.topology.file, inputs / "topology.yaml")
    save_declared(plan.topology, inputs)
    for file in contract_files(plan.topology.directory):
        copy = inputs / file.relative_to(plan.topology.directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    shutil.copy(scenario.file, inputs / "scenario.yaml")
    shutil.copy(scenario.traffic.file, inputs / "traffic.jsonl")


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
