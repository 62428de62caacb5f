"""What is made of what a cluster says of pods that don't come to life."""

from __future__ import annotations

from typing import Any

import pytest

from envctl.substrates.kubernetes.pods import trouble


class Events:
    """An API that has these events, and nothing else."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = [*events]

    def find(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        assert (kind, namespace) == ("Event", "shop")
        return self._events


def unplaced(why: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    return {"metadata": {"name": "web-0-x", "namespace": "shop", "uid": "1"}, "status": {"phase": "Pending", "conditions": [condition]}}


@pytest.mark.parametrize(("why", "patient_s"), [("0/1 nodes are available: 1 Insufficient memory.", 10), ("pod has unbound immediate PersistentVolumeClaims.", 60)])
def test_a_pod_without_a_machine_is_given_up_after_a_while(why: str, patient_s: float) -> None:
    assert trouble(Events(), unplaced(why), patient_s - 1) == ""
    assert trouble(Events(), unplaced(why), patient_s + 1) == f"pod web-0-x finds no node: {why}"


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_machine_that_is_being_added_is_waited_for(reason: str) -> None:
    pod = unplaced("0/1 nodes are available: 1 Insufficient memory.")
    others, its = ({"reason": reason, "involvedObject": {"uid": uid}} for uid in ("2", "1"))
    assert trouble(Events(others), pod, 20)
    assert not trouble(Events(others, its), pod, 20)
