"""`run.json`: what ran, saved before anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from envctl.errors import UsageError
from envctl.model.environment import Node
from envctl.model.plan import Selection
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
