"""A NodeSpec as a property of a resource."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from envctl.model.environment import Mount, NodeSpec
from envctl.model.topology import Probe, Resources


def spec_to_json(spec: NodeSpec) -> str:
    """A NodeSpec as one line of JSON, the same for equal specs."""
    return json.dumps(asdict(spec), default=str, sort_keys=True, separators=(",", ":"))


def spec_from_json(text: str) -> NodeSpec:
    """The inverse of `spec_to_json`."""
    raw = json.loads(text)
    raw["command"] = tuple(raw["command"])
    raw["mounts"] = tuple(Mount(Path(m["source"]), m["target"], m["writable"]) for m in raw["mounts"])
    raw["data"] = None if raw["data"] is None else Path(raw["data"])
    raw["resources"] = Resources(**raw["resources"])
    if raw["ready"] is not None:
        raw["ready"] = Probe(**{**raw["ready"], "command": tuple(raw["ready"]["command"])})
    known = {each.name for each in fields(NodeSpec)}
    return NodeSpec(**{name: value for name, value in raw.items() if name in known})
