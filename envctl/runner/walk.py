"""The run itself: steady state, traffic, faults, settling, collecting; each step leaves its edges in the record."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from envctl.checks.settling import patience_s, settled
from envctl.errors import EnvctlError, UsageError
from envctl.faults.base import Blast
from envctl.model.event import Log, Op, Sample, Step
from envctl.model.scenario import Condition, FaultSpec, Scenario
from envctl.model.topology import Topology
from envctl.record import EVENTS, Record, RecordWriter, RunManifest
from envctl.runner.collect import Collector, bootstrap_of
from envctl.runner.drain import Drain, quiet_s
from envctl.runner.faulting import FaultRun, Field, build, check_escalations, check_limits, probe
from envctl.runner.live import Held, Live, open_for_s
from envctl.runner.measuring import samplers_of
from envctl.runner.redelivering import Redeliverer, redeliveries
from envctl.runner.sampled import newest_of
from envctl.runner.traffic import Driver
from envctl.substrates.base import Reach
from envctl.telemetry import raw
from envctl.waiting import until

POLL_S = 0.1
ENDED = ("backoff", "exited", "held", "stopped")  # states of a node that has no process
STEADY_S = 15.0  # how long the first fault waits for the steady state before the run is given up
ROUNDS_S = (0.5, 1.0, 1.0, 2.0, 2.0, 4.0)  # pauses between rounds of collecting; the last one repeats
CANCELLED, ABANDONED = "cancelled", "nobody follows it any more"  # reasons to end without waiting for what may still come true
DEADLINE_S = 3600.0  # of a scenario that names none


@dataclass(slots=True)
class Run:
    """One walk through a scenario.  `stopping` is set by a signal, a stop condition or the deadline; `reason` says which."""

    directory: Path
    reach: Reach
    topology: Topology
    scenario: Scenario
    manifest: RunManifest
    stopping: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    record: RecordWriter = field(init=False)
    live: Live = field(init=False)
    _over: threading.Event = field(default_factory=threading.Event)
    _hurry: threading.Event = field(default_factory=threading.Event)  # set: nothing that might still come true is waited for

    def __post_init__(self) -> None:
        """Opens the record."""
        self.record = RecordWriter(self.directory / EVENTS)
        newest = newest_of(self.topology, self.scenario.measures)
        self.live = Live(self.now_ns, patience_s=open_for_s(self.scenario), newest=newest)

    def now_ns(self) -> int:
        """Nanoseconds since the run's start."""
        return time.monotonic_ns() - self.manifest.clock_ns

    def stop(self, reason: str) -> None:
        """Ends the run early: faults heal, traffic ends, what there is gets judged.  The first reason counts."""
        if reason in (CANCELLED, ABANDONED):
            self._hurry.set()
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    @contextmanager
    def step(self, name: str, **detail: Any) -> Iterator[dict[str, Any]]:
        """Records both edges of a step; the body may add to the detail of its end, `ok` among it."""
        self.record.write(Step(at_ns=self.now_ns(), name=name, edge="begin", detail=detail))
        said: dict[str, Any] = {}
        try:
            yield said
        except Exception as error:
            said |= {"ok": False, "error": str(error)}
            raise
        finally:
            ok = bool(said.pop("ok", True))
            self.record.write(Step(at_ns=self.now_ns(), name=name, edge="end", ok=ok, detail=detail | said))
            self.record.sync()

    # The walk

    def walk(self) -> None:
        """From the first event to the last.  Raises EnvctlError for what makes a run impossible (and says so in the record)."""
        with self.step("run") as said:
            bootstrap = bootstrap_of(self.topology, tuple(s.component for s in self.manifest.components))
            ground = Field(self.reach, self.topology, self.scenario, bootstrap, self.directory, self.record, self.live,
                           self.now_ns, self.stopping)
            self._preflight(ground)
            collector = Collector(self.reach, self.topology, self.scenario, bootstrap, self.record, self.now_ns,
                                  self.manifest.epoch_ns)
            collector.remember_starts(asked.topic for _, asked in redeliveries(self.scenario))
            telemetry = self.reach.environment().directory / "telemetry"
            drain = Drain(telemetry, raw.positions(telemetry), self.directory / "telemetry", quiet_s(self.topology))
            with self._watched(bootstrap):
                self._traffic(ground)
                self._settle(collector)
                self._drain(drain)
            self._redeliver(ground, collector)
            if self.reason:
                said |= {"ok": False, "reason": self.reason}

    def _preflight(self, ground: Field) -> None:
        """Every fault's targets, capabilities and reach, before anything starts; what is missing is refused here."""
        with self.step("preflight"):
            blasts = {spec.id: _refusable(ground, spec) for spec in self.scenario.faults}
            check_escalations(self.scenario, blasts)

    @contextmanager
    def _watched(self, bootstrap: str) -> Iterator[None]:
        """Samplers and watchers run meanwhile: what ends is looked for apart, because stop conditions must not wait for an answer."""
        from envctl.telemetry.samplers import Samplers

        samplers = Samplers(self.reach, self.topology, bootstrap, self.now_ns, self._sampled, self.record.write,
                            more=samplers_of(self.scenario, self.reach, self.topology, bootstrap))
        samplers.start()
        looks = (partial(self._look, [Held(condition) for condition in self.scenario.stop], time.monotonic()), partial(self._note_ends, {}))
        watchers = [threading.Thread(target=self._watch, args=(look,), name="watch", daemon=True) for look in looks]
        for watcher in watchers:
            watcher.start()
        try:
            yield
        finally:
            self._over.set()
            samplers.stop()
            for watcher in watchers:
                watcher.join()

    def _sampled(self, sample: Sample) -> None:
        self.live.sample(sample)
        self.record.write(sample)

    def _operated(self, event: Op) -> None:
        self.live.operation(event)
        self.record.write(event)

    def _traffic(self, ground: Field) -> None:
        with self.step("traffic") as said:
            driver = Driver(self.directory, self.scenario, self.reach.environment(), self.manifest, bootstrap=ground.bootstrap,
                            operated=self._operated, said=self.record.write, live=self.live)
            driver.wait_begun()
            try:
                hurt = self._timeline(ground, driver, time.monotonic())
                self._end(driver, wait_s=0.0 if hurt else STEADY_S)
            finally:
                driver.stop()
            said |= {"planned": driver.planned, "extended_s": driver.extended_s, "ok": driver.failure == "", "error": driver.failure}

    def _timeline(self, ground: Field, driver: Driver, begun: float) -> bool:
        """Starts each fault when its time has come; ends when the faults are over, or the run is stopped.  Returns whether one acted."""
        runs: dict[str, FaultRun] = {}
        waiting = list(self.scenario.faults)
        steady = _Once(self._steady)
        while not self.stopping.is_set() and (waiting or any(not r.done.is_set() for r in runs.values())):
            waiting = self._without_broken_off(waiting, runs)
            for spec in [s for s in waiting if _due(s, time.monotonic() - begun, runs)]:
                waiting.remove(spec)
                if steady("before"):
                    runs[spec.id] = FaultRun(ground, spec, build(ground, spec))
                    runs[spec.id].start()
            if waiting and not driver.alive and not any(_pending(s, runs) for s in waiting):
                break
            time.sleep(POLL_S)
        for run in runs.values():
            run.done.wait()
        return bool(runs)

    def _without_broken_off(self, waiting: Sequence[FaultSpec], runs: Mapping[str, FaultRun]) -> list[FaultSpec]:
        """Those that may still start: nothing that follows a step of an escalation that was not survived, whether another step or not."""
        left, lost = [], set[str]()
        for spec in waiting:
            if not _broken_off(spec, runs) and not lost.intersection(spec.after):
                left.append(spec)
                continue
            lost.add(spec.id)
            message = f"{spec.id} was not started: {', '.join(spec.after)} was not survived, or not started itself"
            self.record.write(Log(at_ns=self.now_ns(), level="warning", message=message, detail={"not_started": spec.id}))
        return left

    def _end(self, driver: Driver, wait_s: float) -> None:
        """Lets the traffic last for its time, or until the steady state at the end has been measured while it flows."""
        if driver.lasting:
            driver.close()
        until(lambda: self.stopping.is_set() or not driver.lasting, math.inf, poll_s=POLL_S)
        if not self.stopping.is_set():
            self._steady("after", wait_s)
        driver.close()
        until(lambda: self.stopping.is_set() or not driver.alive, math.inf, poll_s=POLL_S)

    def _steady(self, phase: str, wait_s: float = STEADY_S) -> bool:
        """Whether the steady state holds (or comes to hold in time); the answer is an event with every condition's value."""
        with self.step("steady", phase=phase) as said:
            until(lambda: self.stopping.is_set() or all(self.live.meets(c) for c in self.scenario.steady), wait_s, poll_s=POLL_S)
            answers = [self.live.answer(condition) for condition in self.scenario.steady]
            said |= {"conditions": answers, "ok": all(answer["ok"] for answer in answers)}
            if phase == "before" and not said["ok"]:
                self.stop("the steady state was not reached, so no fault was applied")
            return bool(said["ok"])

    # Beside the walk

    def _watch(self, look: Callable[[], None]) -> None:
        while not self._over.wait(0.25):
            try:
                look()
            except Exception as error:  # noqa: BLE001 — unwatched, a run could go on against its own stop conditions, or lack evidence
                self.stop(f"the run could not be watched any more: {type(error).__name__}: {error}")
                return

    def _look(self, held: Sequence[Held], begun: float) -> None:
        """Stop conditions and the deadline."""
        for each in held:
            if each.update(self.live.meets(each.condition, widen=True)) and not self.stopping.is_set():
                self._stopped_by(each.condition)
        if time.monotonic() - begun > (self.scenario.limits.deadline_s or DEADLINE_S):
            self.stop("deadline")

    def _stopped_by(self, condition: Condition) -> None:
        self.record.write(Log(at_ns=self.now_ns(), level="warning", message=f"stopped: {condition.text}",
                              detail={"stop": condition.text, "value": self.live.value(condition)}))
        self.stop(f"stop condition: {condition.text}")

    def _note_ends(self, ends: dict[str, int]) -> None:
        """Each end of a node once, whether its supervisor has started it again yet or not."""
        for node in self.reach.environment().nodes:
            ended = node.starts - (node.state not in ENDED)
            before = ends.setdefault(node.name, ended)
            if ended > before and node.exit_status is not None:  # of a death just now the status may still be to come
                ends[node.name] = ended
                self.record.write(Log(at_ns=self.now_ns(), level="info", message=f"{node.name} ended",
                                      detail={"node": node.name, "exit_status": node.exit_status}))

    # After the traffic

    def _settle(self, collector: Collector) -> None:
        """Reads the streams, again and again until every check that may still come true has, or its time is over."""
        patience = patience_s(self.scenario.checks)
        with self.step("settle", patience_s=patience) as said:
            deadline = time.monotonic() + patience
            rounds = 0
            while True:
                begun = time.monotonic()  # what was read before the time was over says nothing of what was still to come
                collector.round()
                rounds += 1
                if self._hurry.is_set() or begun >= deadline or settled(Record(self.directory, self.scenario)):
                    break
                pause = max(0.0, min(ROUNDS_S[min(rounds, len(ROUNDS_S)) - 1], deadline - time.monotonic()))
                until(self._hurry.is_set, pause, poll_s=POLL_S)  # not its wait: a signal sets it in this very thread
            said["rounds"] = rounds

    def _drain(self, drain: Drain) -> None:
        """Waits for the spans that exporters still hold back; longer where a check misses some."""
        with self.step("drain") as said:
            said["whole"] = drain.until_whole(lambda: settled(Record(self.directory, self.scenario), telemetry=True))


    # After everything else: unwatched, because what it does is no part of what is judged otherwise

    def _redeliver(self, ground: Field, collector: Collector) -> None:
        """Delivers again what checks ask for, one after the other; where that can't be done, the check is told why."""
        for spec, asked in redeliveries(self.scenario):
            if self.stopping.is_set():
                return
            with self.step("redeliver", check=spec.id, group=asked.group, topic=asked.topic) as said:
                try:
                    said.update(Redeliverer(ground, collector, asked, spec.id).run())
                except Exception as error:  # noqa: BLE001 — drivers raise their own errors; each makes this undone, not the run
                    said.update(ok=False, error=error.message if isinstance(error, EnvctlError) else f"{type(error).__name__}: {error}")


class _Once:
    """Asks the first time only, and remembers the answer."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        self._ask = ask
        self._answer: bool | None = None

    def __call__(self, phase: str) -> bool:
        if self._answer is None:
            self._answer = self._ask(phase)
        return self._answer


def _due(spec: FaultSpec, elapsed_s: float, runs: Mapping[str, FaultRun]) -> bool:
    if spec.at_s is not None:
        return elapsed_s >= spec.at_s
    return all(name in runs and runs[name].done.is_set() for name in spec.after)


def _broken_off(spec: FaultSpec, runs: Mapping[str, FaultRun]) -> bool:
    """Whether it follows a step of an escalation that was not survived."""
    before = (runs[name] for name in spec.after if name in runs)
    return any(run.spec.escalation and run.done.is_set() and not run.survived for run in before)


def _pending(spec: FaultSpec, runs: Mapping[str, FaultRun]) -> bool:
    """Whether a fault may still start although the traffic is over: only while those it follows are under way."""
    return spec.at_s is None and all(name in runs for name in spec.after)


def _refusable(ground: Field, spec: FaultSpec) -> Blast:
    """The fault's blast as of now.  Raises UsageError that says where in the scenario it stands."""
    try:
        blast = probe(build(ground, spec), ground.stopping)
        check_limits(ground.scenario, blast)
    except UsageError as error:
        raise UsageError(f"{ground.scenario.file.name}:{spec.line}: {spec.id}: {error.message}", hint=error.hint) from error
    return blast


def load_inputs(directory: Path) -> tuple[RunManifest, Topology, Scenario]:
    """What `session` prepared for this run.  Raises SpecError, UsageError."""
    from envctl.spec import load_scenario, load_topology

    manifest = RunManifest.load(directory)
    topology = load_topology(directory / "inputs" / "topology.yaml")
    scenario = load_scenario(directory / "inputs" / "scenario.yaml", topology, rng_seed=manifest.rng_seed)
    return manifest, topology, scenario


def failed(run_directory: Path, error: EnvctlError) -> None:
    """Leaves the reason where `session` finds it, so that the same error is raised there."""
    text = json.dumps({"exit_code": int(error.exit_code), "message": error.message, "hint": error.hint})
    (run_directory / "error.json").write_text(text, encoding="utf-8")
