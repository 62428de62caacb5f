"""A NodeSpec as a property of a resource."""

from __future__ import annotations

import json
from dataclasses import asdict

from envctl.model.environment import NodeSpec, spec_from


def spec_to_json(spec: NodeSpec) -> str:
    """A NodeSpec as one line of JSON, the same for equal specs."""
    return json.dumps(asdict(spec), default=str, sort_keys=True, separators=(",", ":"))


def spec_from_json(text: str) -> NodeSpec:
    """The inverse of `spec_to_json`."""
    return spec_from(json.loads(text))
