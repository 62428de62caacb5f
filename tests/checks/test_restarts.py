from __future__ import annotations

from dataclasses import replace

import pytest

from envctl.checks.restarts import restarts
from envctl.model.environment import Node
from envctl.model.event import FaultEdge, Log
from envctl.record import RunManifest

S = 1_000_000_000


@pytest.fixture
def run(history):
    """A run of a service and a broker; `kill` writes a fault that ended `node` between 5 s and 9 s.  Returns the findings."""
    nodes = tuple(Node(name, name[:-2], kind, "a", "", "ready", 1, 0.0, 1, None)
                  for name, kind in (("payments-0", "service"), ("bus-0", "kafka"), ("member-0", "helper")))
    replace(RunManifest.load(history.directory), nodes=nodes).save(history.directory)

    def write(*logs, kill="", verified=True, status=137):
        if kill:
            for edge, at in (("probe", 5), ("journal", 5), ("apply", 5), ("verify", 6), ("heal", 8), ("absent", 9), ("recover", 9)):
                detail = {"nodes": [{"node": kill, "exit_status": status}]} if edge in ("verify", "absent") else {}
                if verified or edge != "verify":
                    history.write(FaultEdge(at_ns=at * S, id="kill", fault="node-kill", edge=edge, ok=True, detail=detail))
        for at, node, exit_status in logs:
            history.write(Log(at_ns=round(at * S), level="info", message="restarted", detail={"node": node, "exit_status": exit_status}))
        return restarts(history.record())

    return write


def test_a_run_without_restarts_has_no_finding(run):
    assert run() == ()


def test_a_service_that_ends_by_itself_fails_and_is_named(run):
    (found,) = run((3, "payments-0", 1), (4, "payments-0", 1))
    assert (found.id, found.group, found.outcome, found.total) == ("run:restarts", "run", "fail", 2)
    assert found.title == "payments-0 ended without a fault that explains it (exit status 1 before 3.00 s; 2 times in all)"
    assert found.evidence[0].summary == "payments-0 ended with exit status 1, seen at 3.00 s"


def test_what_a_fault_killed_is_explained(run):
    assert run((5.3, "payments-0", 137), (9.2, "payments-0", 137), kill="payments-0") == ()


@pytest.mark.parametrize(("restart", "kill"), [
    ((6, "payments-0", 1), "payments-0"), ((6, "payments-0", 137), "bus-0"), ((12, "payments-0", 137), "payments-0"), ((3, "payments-0", 137), "payments-0"),
])
def test_another_end_of_another_node_or_at_another_time_is_not(run, restart, kill):
    (found,) = run(restart, kill=kill)
    assert found.outcome == "fail"


def test_a_crash_under_another_fault_names_it(run):
    (found,) = run((6, "payments-0", 1), kill="bus-0")
    assert found.evidence[0].faults == ("kill",)
    assert "under kill (5.00 s)" in found.evidence[0].summary


def test_a_fault_that_was_cut_short_may_have_ended_any_node(run):
    assert run((6, "payments-0", 137), kill="payments-0", verified=False) == ()


@pytest.mark.parametrize("restart", [(3, "bus-0", 1), (3, "payments-0", 143), (3, "payments-0", None)])
def test_an_engine_that_ends_and_a_node_that_was_asked_to_stop_are_inconclusive(run, restart):
    (found,) = run(restart)
    assert found.outcome == "inconclusive"


@pytest.mark.parametrize("node", ["member-0", "another-0"])
def test_nodes_of_faults_do_not_count(run, node):
    assert run((3, node, 1)) == ()
