"""The JSON forms of a plan and of an environment, as `--output json` prints them (docs/formats.md)."""

from __future__ import annotations

from envctl.model.environment import Environment
from envctl.model.plan import Plan


def plan_fields(plan: Plan) -> dict[str, object]:
    """The plan, `plan/v1`."""
    return {
        "format": "plan/v1",
        "env_id": plan.env_id,
        "stack": plan.topology.name,
        "substrate": plan.substrate,
        "ttl_s": plan.ttl_s,
        "digest": plan.digest,
        "components": [
            {"name": each.component, "kind": plan.topology.components[each.component].kind, "why": each.why, "because": each.because}
            for each in plan.selected
        ],
        "stubbed": plan.stubbed,
        "left_out": plan.left_out,
        "labels": dict(plan.labels),
        "source_digests": dict(plan.source_digests),
        "notes": plan.notes,
    }


def environment_fields(environment: Environment) -> dict[str, object]:
    """An environment; the answers of `up`, `status` and `list` hold these fields."""
    return {
        "id": environment.id, "stack": environment.stack, "substrate": environment.substrate, "directory": str(environment.directory),
        "plan_digest": environment.plan_digest, "expires_at": environment.expires_at, "labels": dict(environment.labels),
        "endpoints": dict(environment.endpoints),
        "nodes": [
            {
                "name": node.name, "component": node.component, "kind": node.kind, "zone": node.zone, "address": node.address,
                "state": node.state, "starts": node.starts, "started_at": node.started_at, "exit_status": node.exit_status,
                "ports": dict(node.ports), "digest": node.digest,
            }
            for node in environment.nodes
        ],
    }
