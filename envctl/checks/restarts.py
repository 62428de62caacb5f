"""Restarts of nodes that no fault explains: a service that ends by itself has failed, whatever its messages say."""

from __future__ import annotations

from collections.abc import Sequence

from envctl.checks.evidence import AFTERMATH_NS, SHOWN, during, seconds
from envctl.model.event import Log
from envctl.model.verdict import Evidence, Finding, Outcome
from envctl.record import FaultWindow, Record

ASKED_TO_STOP = (None, 128 + 15)  # unknown, or SIGTERM: somebody else's doing rather than the service's


def restarts(record: Record) -> tuple[Finding, ...]:
    """A finding `run:restarts`, if there is anything to find: fail for services, inconclusive for engines (or where it was asked to stop).

    Nodes that were no part of the environment when the run began belong to faults and don't count.
    """
    kinds = {node.name: node.kind for node in record.manifest.nodes}
    found = [log for log in record.logs if log.detail.get("node") in kinds and kinds[log.detail["node"]] != "helper"
             and not any(_explains(window, log) for window in record.faults)]
    if not found:
        return ()
    own = [log for log in found if kinds[log.detail["node"]] == "service" and log.detail.get("exit_status") not in ASKED_TO_STOP]
    outcome: Outcome = "fail" if own else "inconclusive"
    evidence = tuple(_told(record, log) for log in [*own, *(log for log in found if log not in own)][:SHOWN])
    return (Finding("run:restarts", "run", outcome, _title(own or found), "run", evidence, len(found)),)


def _explains(window: FaultWindow, log: Log) -> bool:
    """Whether the fault ended that node in that way.  One that was cut short before it told may have."""
    if not window.overlaps(log.at_ns - AFTERMATH_NS, log.at_ns):
        return False
    verify = window.edge("verify")
    return verify is None or any(
        isinstance(node, dict) and node.get("exit_status") is not None
        and (node.get("node"), node["exit_status"]) == (log.detail["node"], log.detail.get("exit_status"))
        for node in verify.detail.get("nodes", ())
    )


def _title(logs: Sequence[Log]) -> str:
    names = ", ".join(dict.fromkeys(str(log.detail["node"]) for log in logs))
    first = logs[0]
    how = f"exit status {first.detail.get('exit_status')} before {seconds(first.at_ns)}"
    return f"{names} ended without a fault that explains it ({how}{f'; {len(logs):,} times in all' if len(logs) > 1 else ''})"


def _told(record: Record, log: Log) -> Evidence:
    faults = record.overlapping(log.at_ns - AFTERMATH_NS, log.at_ns)
    text = f"{log.detail['node']} ended with exit status {log.detail.get('exit_status')}, seen at {seconds(log.at_ns)}"
    return Evidence(f"{text}{during(record, faults)}", at_ns=log.at_ns, faults=faults)
