"""What the runner tells the replay driver, as one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """Everything the driver needs.

    `targets` is component → protocol ("http", "grpc") → addresses ("198.18.1.7:8080"), used in turn.  `zero_ns` is the
    run's start and `begin_ns` the traffic's, on CLOCK_MONOTONIC; begin 0 means as soon as the driver is warm.  With `until_told`
    the traffic goes on until standard input has said when it ends, in seconds since its begin, on one line.  `salt` makes
    `{{uuid}}` differ between runs in one environment (the run's id); empty, it depends on `rng_seed` alone.
    """

    traffic: str
    to: str
    targets: Mapping[str, Mapping[str, Sequence[str]]]
    zero_ns: int
    begin_ns: int = 0
    rate_per_s: float | None = None
    duration_s: float | None = None
    until_told: bool = False
    model: Literal["open", "closed"] = "open"
    in_order: bool = False  # operations of a key wait for each other
    timeout_s: float = 5.0
    rng_seed: int = 0
    salt: str = ""
    kafka: str = ""  # bootstrap servers
    protos: Sequence[str] = field(default_factory=tuple)  # .proto files that declare the gRPC services

    def save(self, path: Path) -> None:
        """Writes the file that `python -m envctl.replay.driver` takes."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> DriverConfig:
        """Reads it back."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
