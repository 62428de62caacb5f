"""What is made of what a cluster says of pods that don't come to life, or of what is too old to be told on."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration

from envctl.substrates.kubernetes.api import Api
from envctl.substrates.kubernetes.pods import crash, is_under_way, not_made, trouble


class Events:
    """An API that has these events, and words of containers; and of workloads a Deployment with a ReplicaSet."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = [*events]

    def find(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        assert namespace == "shop"
        return self._events if kind == "Event" else [{"metadata": {"uid": "set", "ownerReferences": [{"uid": "deployment"}]}}, {"metadata": {"uid": "other"}}]

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        assert (name, namespace) == ("web-0", "shop")
        return {"metadata": {"uid": kind.lower()}}

    def words(self, pod: str, namespace: str, container: str, *, lines: int, of_last: bool) -> list[str]:
        assert (pod, namespace, container, lines, of_last) == ("web-0-x", "shop", "main", 5, True)
        return ["Traceback", "no module"]


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


def event(reason: str, message: str, uid: str = "1", at: str = "2026-01-01T00:00:00Z", **involved: str) -> dict[str, Any]:
    return {"reason": reason, "message": message, "lastTimestamp": at, "metadata": {}, "involvedObject": {"uid": uid, **involved}}


def waiting(reason: str, message: str = "", group: str = "containerStatuses") -> dict[str, Any]:
    status = {group: [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}]}
    return {"metadata": {"name": "web-0-x", "namespace": "shop", "uid": "1"}, "spec": {"nodeName": "n"}, "status": {"phase": "Pending", **status}}


@pytest.mark.parametrize(("reason", "message", "hopeless"), [
    ("ContainerCreating", "", False), ("PodInitializing", "", False), ("ErrImagePull", "dial tcp: i/o timeout", False), ("CrashLoopBackOff", "", False),
    ("ErrImagePull", "shop.example/a:1: not found", True), ("ErrImagePull", "pull access Denied", True), ("ImagePullBackOff", "i/o timeout", True),
    ("ErrImageNeverPull", "", True), ("InvalidImageName", "", True), ("CreateContainerConfigError", "secret keeper not found", True),
    ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition", False),
])
@pytest.mark.parametrize("group", ["containerStatuses", "initContainerStatuses"])
def test_what_may_still_pass_by_itself_is_waited_for_and_nothing_else(reason: str, message: str, hopeless: bool, group: str) -> None:
    assert trouble(Events(), waiting(reason, message, group), 0) == (f"pod web-0-x: {reason}: {message}" if hopeless else "")


@pytest.mark.parametrize(("reason", "message", "patient_s"), [
    ("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found', 10), ("FailedBinding", "no persistent volumes available and no storage class is set", 10),
    ("ProvisioningFailed", "rpc error: rate exceeded", 60), ("ExternalProvisioning", "waiting for a volume to be created", 60),
])
def test_a_claim_that_gets_no_volume_is_told_with_its_newest_word(reason: str, message: str, patient_s: float) -> None:
    pod = unplaced("pod has unbound immediate PersistentVolumeClaims.")
    pod["spec"] = {"volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "keeper"}}]}
    its = event(reason, message, at="2026-01-01T00:00:09Z", kind="PersistentVolumeClaim", name="keeper")
    others = (event("ProvisioningFailed", "other", at="2026-01-01T00:00:10Z", kind="PersistentVolumeClaim", name="data"), event("Provisioning", "begins", kind="PersistentVolumeClaim", name="keeper"))
    assert trouble(Events(its, *others), pod, patient_s - 1) == ""
    assert trouble(Events(its, *others), pod, patient_s + 1) == f"volume claim keeper: {reason}: {message}"


@pytest.mark.parametrize("reason", ["WaitForFirstConsumer", "ExternalProvisioning"])
def test_what_was_said_of_a_claim_hides_nothing_that_the_scheduler_says(reason: str) -> None:
    pod = unplaced("0/1 nodes are available: 1 Insufficient memory.")
    pod["spec"] = {"volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "keeper"}}]}
    waits = event(reason, "waiting", kind="PersistentVolumeClaim", name="keeper")
    assert "Insufficient memory" in trouble(Events(waits), pod, 11)
    assert "Insufficient memory" in trouble(Events(waits), pod, 61)


def test_a_container_that_ends_again_and_again_is_told_with_its_last_words() -> None:
    assert crash(Events(), waiting("ContainerCreating")) == ""
    assert crash(Events(), waiting("CrashLoopBackOff")) == "pod web-0-x: CrashLoopBackOff: its container main ends again and again\n  Traceback\n  no module"


@pytest.mark.parametrize(("events", "under_way"), [
    ([event("Scheduled", "")], False), ([event("Scheduled", ""), event("Pulling", "", at="2026-01-01T00:00:01Z")], True),
    ([event("Pulling", ""), event("Pulled", "", at="2026-01-01T00:00:01Z")], False), ([event("Pulling", "", uid="2")], False),
    ([event("FailedScheduling", "", at="2026-01-01T00:00:01Z"), event("TriggeredScaleUp", "")], True),
])
def test_an_image_or_a_machine_that_comes_is_under_way(events: list[dict[str, Any]], under_way: bool) -> None:
    assert is_under_way(Events(*events), waiting("ContainerCreating")) == under_way


REFUSED = event("FailedCreate", "exceeded quota", uid="set", at="2026-01-01T00:00:05Z")


@pytest.mark.parametrize(("events", "why"), [
    ([], ""), ([REFUSED], "Deployment web-0: FailedCreate: exceeded quota"),
    ([REFUSED, event("SuccessfulCreate", "made", uid="set", at="2026-01-01T00:00:05Z")], ""),
    ([REFUSED, event("SuccessfulCreate", "made", uid="set", at="2026-01-01T00:00:04Z")], "Deployment web-0: FailedCreate: exceeded quota"),
    ([event("FailedCreate", "of one that was there before, under the same name", uid="other", name="web-0-1")], ""),
    ([event("ReplicaSetCreateError", "exceeded quota", uid="deployment")], "Deployment web-0: ReplicaSetCreateError: exceeded quota"),
])
def test_why_there_is_no_pod_is_the_newest_word_about_the_workload_that_there_is(events: list[dict[str, Any]], why: str) -> None:
    assert not_made(Events(*events), "shop", "Deployment", "web-0") == why


class Expired(BaseHTTPRequestHandler):
    """An API that has forgotten what it listed; it leaves open what it has no more to say on."""

    over = threading.Event()

    def do_GET(self) -> None:
        watched = "watch=1" in self.path
        self.send_response(200)
        self.end_headers()
        gone = b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}\n'
        self.wfile.write(gone if watched else b'{"items": [], "metadata": {"resourceVersion": "1"}}')
        self.wfile.flush()
        self.over.wait(30) if watched else None

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_watch_that_knows_too_old_a_state_ends_at_once_so_that_all_is_listed_again() -> None:
    server = HTTPServer(("127.0.0.1", 0), Expired)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        api = Api(ApiClient(Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")))
        watched = api.watch("Pod", "shop", "")
        assert [event["type"] for event in watched] == ["LISTED"]
    finally:
        Expired.over.set()
        server.shutdown()
        server.server_close()
