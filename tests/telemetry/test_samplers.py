import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from envctl.model.environment import Node
from envctl.model.topology import Service, Source, Subscription, Topology
from envctl.substrates.usage import by_pid_namespace, of_namespaces
from envctl.telemetry import samplers
from envctl.telemetry.processes import CostSampler, HostSampler, PostgresSampler, ProcessSampler, Rate
from envctl.telemetry.reading import Reading

BURN = "import os, time\nif os.fork() == 0:\n    while True: pass\ntime.sleep(600)\n"


def until(condition, deadline_s=30):
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)
    return found


def node(name, pid, state="ready", **more):
    return Node(name, name.rsplit("-", 1)[0], more.pop("kind", "service"), "a", more.pop("address", "127.0.0.1"), state, pid, 1.0, 1, None, **more)


def reach_of(*nodes):
    def usage():
        return of_namespaces({each.name: Path(f"/proc/{each.pid}/ns/pid").stat().st_ino for each in nodes if each.pid})

    return SimpleNamespace(environment=lambda: SimpleNamespace(nodes=nodes), usage=usage)


def values(sampler):
    return {(reading.measure, reading.attrs.get("node", "")): reading.value for reading in sampler.sample()}


@pytest.fixture
def busy():
    """A node in a PID namespace of its own, one of whose processes burns CPU while the main one sleeps."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", sys.executable, "-c", BURN]
    outer = subprocess.Popen(command)

    def inside():
        for pids in by_pid_namespace().values():
            for pid in pids:
                try:
                    if Path(f"/proc/{pid}/status").read_text().split("PPid:\t")[1].split()[0] == str(outer.pid):
                        return pid
                except (OSError, IndexError):
                    continue
        return None

    main = until(inside)
    until(lambda: Path(f"/proc/{main}/task/{main}/children").read_text())
    yield main
    outer.kill()
    outer.wait()


@pytest.mark.cell
def test_a_nodes_use_is_that_of_all_its_processes(busy):
    sampler = ProcessSampler(reach_of(node("orders-0", busy), node("gone-0", None, "backoff"), node("new-0", None, "starting")))
    first = values(sampler)
    assert first["process.cpu", "orders-0"] is None
    assert first["process.memory", "orders-0"] > 4_000_000
    assert until(lambda: values(sampler)["process.cpu", "orders-0"] or None) > 0
    later = values(sampler)
    assert later["process.cpu", "gone-0"] == later["process.memory", "gone-0"] == 0
    assert later["process.cpu", "new-0"] is None
    assert next((reading.value, reading.attrs["node"]) for reading in sampler.unknown()) == (None, "orders-0")


def test_rates_are_never_negative_and_new_keys_have_none():
    rate = Rate()
    assert rate({"a": 5.0}) == {}
    found = rate({"a": 3.0, "b": 1.0})
    assert found == {"a": 0.0}


def test_the_machine_and_envctl_itself_are_measured():
    for sampler in (HostSampler(), CostSampler()):
        assert list(sampler.sample()) == []
        until(lambda sampler=sampler: all(reading.value is not None for reading in sampler.sample()))


def test_a_database_that_does_not_answer_is_unknown():
    sampler = PostgresSampler(reach_of(node("shop-db-0", 1, kind="postgres", ports={"postgres": 1})))
    assert values(sampler) == {(measure, "shop-db-0"): None for measure in sampler.MEASURES}
    sampler.close()


class Moody:
    """A sampler that fails while it is told to."""

    def __init__(self):
        self.broken, self.closed = True, False

    def sample(self):
        yield Reading("x", 1.0)
        if self.broken:
            raise OSError("no way")

    def unknown(self):
        return [Reading("x", None)]

    def close(self):
        self.closed = True


def test_a_sampler_that_fails_gives_unknown_values_says_so_once_and_goes_on():
    moody, samples, logs = Moody(), [], []
    thread = samplers._Thread(moody, 0.01, lambda: 7, samples.append, logs.append)
    thread.start()
    until(lambda: len(samples) > 3)
    moody.broken = False
    until(lambda: samples[-1].value == 1.0)
    thread.over.set()
    thread.join(10)
    assert {sample.value for sample in samples} == {None, 1.0}
    assert [(log.level, log.detail["error"]) for log in logs] == [("warning", "OSError: no way")]
    assert samples[0].at_ns == 7
    assert moody.closed


def test_a_sample_bears_the_time_at_which_its_reading_began():
    clock, samples = [3], []

    class Slow(Moody):
        def sample(self):
            clock[0] = 9
            return [Reading("x", 1.0)]

    samplers._Thread(Slow(), 1, lambda: clock[0], samples.append, print)._once()
    assert [(one.at_ns, one.value) for one in samples] == [(3, 1.0)]


def test_all_samplers_start_and_stop_with_a_topology():
    source = Source("tree", ".")
    service = Service(name="payments", source=source, command=("x",), consumes=(Subscription("orders", "payments"),))
    topology = Topology("shop", Path("topology.yaml"), ("a",), {"payments": service})
    assert samplers.subscriptions_of(topology) == (("payments", "orders"),)
    samples, lock = [], threading.Lock()

    def sampled(sample):
        with lock:
            samples.append(sample)

    running = samplers.Samplers(
        reach_of(node("me-0", os.getpid())), topology, "", time.monotonic_ns, sampled, print, interval_s=0.05
    )
    running.start()
    until(lambda: {"process.cpu", "process.memory", "host.cpu", "envctl.cpu"} <= {one.measure for one in samples if one.value is not None})
    running.stop()
    count = len(samples)
    assert not any(thread.is_alive() for thread in running._threads)
    assert len(samples) == count
