"""One fault of the timeline, walked through its contract: every stage leaves an event, and healing always happens."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from envctl import plugins
from envctl.errors import EnvctlError, UsageError
from envctl.faults import acting
from envctl.faults.base import Blast, Effect, Fault, World
from envctl.model.event import FaultEdge, Log
from envctl.model.scenario import FaultSpec, Scenario
from envctl.model.topology import Topology
from envctl.record import RecordWriter
from envctl.runner.live import Live
from envctl.runner.noticing import Notice
from envctl.spec.conditions import format_answer
from envctl.substrates.base import Reach

LEASE_S = 8.0  # how long a fault outlives an injector that was killed
RENEW_S = 2.0
RENEWED_S = 15.0  # how long the last renewal may take: then it is healed all the same
POLL_S = 0.1
READY_TO_HURT_S = 15.0  # how long a fault's targets may take to be there
PROBE_AGAIN_S = 0.5

Stage = Literal["probe", "journal", "apply", "verify", "hold", "heal", "absent", "recover", "detect", "during"]


@dataclass(frozen=True, slots=True)
class Field:
    """What all faults of one run share."""

    reach: Reach
    topology: Topology
    scenario: Scenario
    bootstrap: str
    directory: Path  # the run's
    record: RecordWriter
    live: Live
    now_ns: Callable[[], int]
    stopping: threading.Event  # set: heal at once and start nothing more


def build(field: Field, spec: FaultSpec) -> Fault:
    """The fault of one entry of the timeline, with randomness of its own drawn from the scenario's seed."""
    scratch = _scratch(field, spec)
    scratch.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"{field.scenario.rng_seed}/{spec.id}")
    world = World(field.reach, field.topology, rng, scratch, field.bootstrap, field.stopping)
    fault: Fault = plugins.load("envctl.faults", spec.fault).build(spec.params, world)
    return fault


def _scratch(field: Field, spec: FaultSpec) -> Path:
    return field.directory / "faults" / spec.id


def probe(fault: Fault, stopping: threading.Event, claim: Callable[[Blast], None] = lambda _: None) -> Blast:
    """The fault's blast, asked until its targets are there (a group that forms, a node that starts) and free; the last refusal is raised."""
    deadline = time.monotonic() + READY_TO_HURT_S
    while True:
        try:
            blast = fault.probe()
            claim(blast)
        except UsageError:
            if time.monotonic() >= deadline or stopping.wait(PROBE_AGAIN_S):
                raise
        else:
            return blast


def check_limits(scenario: Scenario, blast: Blast) -> None:
    """Refuses a fault that reaches further than the scenario allows.  Raises UsageError."""
    limits, zones = scenario.limits, {node.zone for node in blast.nodes}
    if limits.max_nodes is not None and len(blast.nodes) > limits.max_nodes:
        raise UsageError(f"{blast.summary}: touches {len(blast.nodes)} nodes, the scenario's limit is {limits.max_nodes}")
    if limits.max_zones is not None and len(zones) > limits.max_zones:
        raise UsageError(f"{blast.summary}: touches {len(zones)} zones, the scenario's limit is {limits.max_zones}")


def check_escalations(scenario: Scenario, blasts: Mapping[str, Blast]) -> None:
    """Refuses an escalation a step of which reaches no further than the one before.  Raises UsageError."""
    reached: dict[tuple[str, int], set[str]] = {}
    for fault in scenario.faults:
        if fault.escalation:
            reached.setdefault((fault.escalation, fault.step), set()).update(node.name for node in blasts[fault.id].nodes)
    for fault in scenario.faults:
        before, now = (reached.get((fault.escalation, step)) for step in (fault.step - 1, fault.step))
        if before is not None and now is not None and len(now) <= len(before):
            raise UsageError(f"{scenario.file.name}:{fault.line}: {fault.id}: step {fault.step} of the escalation hits {', '.join(sorted(now)) or 'no node'}, "
                             f"the one before it {', '.join(sorted(before))}", hint="a step reaches further than the one before it")


class FaultRun(threading.Thread):
    """Walks one fault.  `done` is set when it has recovered or given up; `survived` tells whether every stage went well."""

    def __init__(self, field: Field, spec: FaultSpec, fault: Fault) -> None:
        super().__init__(name=f"fault {spec.id}", daemon=True)
        self.spec = spec
        self.done = threading.Event()
        self.recovered = False
        self.survived = True
        self._notice: Notice | None = None
        self._field = field
        self._fault = fault
        self._blast = Blast((), "")
        self._applied = False

    def run(self) -> None:
        """The contract, in order.  A stage that fails skips to healing; healing is never skipped, and the run is never left waiting for us."""
        try:
            self._walk()
        finally:
            acting.end(_scratch(self._field, self.spec))
            self.survived = self.survived and self.recovered
            self.done.set()

    def _walk(self) -> None:
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 — whatever it was, the fault must be healed and the reason recorded
            self._note_error(error)
        try:
            if self._applied:
                self._undo()
        except Exception as error:  # noqa: BLE001
            self._note_error(error)
        if self._notice is not None:
            self._notice.over(stopped=self._field.stopping.is_set())

    def _act(self) -> None:
        self._stage("probe", self._probe, _step(self.spec))
        self._stage("journal", self._journal)
        self._notice = Notice(self.spec, self._field.scenario, self._field.live, self._field.now_ns, self._event)
        self._notice.start()
        self._applied = True
        begun = time.monotonic()
        self._stage("apply", lambda: self._fault.apply(LEASE_S))
        self._notice.acts()
        renewer, held = _Renewer(self._fault, self._note_refusal), None
        try:
            self._measured("verify", self._fault.verify)
            held = None if self._fault.instantaneous else self._hold(begun)
        finally:
            if not renewer.stop():
                held = Effect(False, f"a renewal of its lease hung for {RENEWED_S:g} s, and it was healed meanwhile", held.detail if held else {})
            if held is not None:
                self._event("hold", held.shown, held.summary, dict(held.detail))

    def _probe(self) -> str:
        self._blast = probe(self._fault, self._field.stopping, self._claim)
        check_limits(self._field.scenario, self._blast)
        return self._blast.summary

    def _claim(self, blast: Blast) -> None:
        acting.begin(_scratch(self._field, self.spec), blast, getattr(self._fault, "claims", ()))

    def _journal(self) -> None:
        """Appends the undo to the run's journal, on the disk before the fault acts."""
        line = json.dumps({"fault": self.spec.id, "kind": self.spec.fault, "undo": dict(self._fault.undo())})
        with (self._field.directory / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _hold(self, begun: float) -> Effect | None:
        """Keeps the fault acting for its time, then measures again: what acted at first may have ended on the way."""
        while time.monotonic() < begun + (self.spec.for_s or 0.0) and not self._field.stopping.wait(POLL_S):
            pass
        return None if self._field.stopping.is_set() else _effect(self._fault.verify)

    def _undo(self) -> None:
        self._stage("heal", self._fault.heal)
        healed_ns = self._field.now_ns()
        self._measured("absent", self._fault.absent)
        acting.end(_scratch(self._field, self.spec))
        if self._notice is not None:
            self._notice.gone()
        if not self._field.stopping.is_set():
            self._recover(healed_ns)

    def _recover(self, healed_ns: int) -> None:
        """Waits until every steady-state condition holds again, counting only what was due after the healing.

        It is believed when they have held for as long as an operation may be open: what hangs shows by then.
        """
        within_s = self.spec.recover_within_s or self._field.scenario.recover_within_s
        deadline, patience_s = time.monotonic() + within_s, self._field.live.patience_s
        answers: list[dict[str, Any]] = []
        since: float | None = None
        while time.monotonic() < deadline and not self._field.stopping.is_set():
            answers = [self._field.live.answer(condition, healed_ns) for condition in self._field.scenario.steady]
            if not all(answer["ok"] for answer in answers):
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since >= patience_s:
                self.recovered = True
                break
            time.sleep(POLL_S)
        took = (self._field.now_ns() - healed_ns) / 1e9 - patience_s
        if self._notice is not None:
            self._notice.over(stopped=self._field.stopping.is_set())
        summary = f"recovered in {max(took, 0):.1f} s" if self.recovered else _not_recovered(answers)
        self._event("recover", self.recovered, summary, {"seconds": max(took, 0.0), "conditions": answers})

    def _stage(self, name: Stage, work: Callable[[], Any], detail: dict[str, Any] | None = None) -> None:
        try:
            said = work()
        except Exception as error:
            self._event(name, ok=False, summary=str(error), detail={"error": repr(error)})
            raise
        self._event(name, ok=True, summary=said if isinstance(said, str) else "", detail=detail)

    def _measured(self, name: Stage, measure: Callable[[], Effect]) -> None:
        effect = _effect(measure)
        self._event(name, effect.shown, effect.summary, dict(effect.detail))

    def _event(self, edge: Stage, ok: bool, summary: str = "", detail: dict[str, Any] | None = None) -> None:
        self.survived = self.survived and (ok or edge == "detect")
        self._field.record.write(FaultEdge(at_ns=self._field.now_ns(), id=self.spec.id, fault=self.spec.fault, edge=edge,
                                           ok=ok, summary=summary, detail=detail or {}))
        self._field.record.sync()

    def _note_error(self, error: Exception) -> None:
        self._log("error", str(error), {"traceback": traceback.format_exc()})

    def _note_refusal(self, error: Exception) -> None:
        self._log("warning", f"a renewal was refused: {error}", {"refused": self.spec.id})

    def _log(self, level: Literal["warning", "error"], message: str, detail: dict[str, Any]) -> None:
        with suppress(OSError):  # a record that can't be written is told when it is closed; here it must not keep a fault from being healed
            self._field.record.write(Log(at_ns=self._field.now_ns(), level=level, message=f"fault {self.spec.id}: {message}", detail=detail))


def _effect(measure: Callable[[], Effect]) -> Effect:
    try:
        return measure()
    except EnvctlError as error:
        return Effect(shown=False, summary=error.message)


def _step(spec: FaultSpec) -> dict[str, Any]:
    return {"escalation": spec.escalation, "step": spec.step, "steps": spec.steps} if spec.escalation else {}


def _not_recovered(answers: list[dict[str, Any]]) -> str:
    if unmet := [answer for answer in answers if answer["ok"] is False]:
        return f"not recovered: {'; '.join(map(format_answer, unmet))}"
    unknown = [answer["text"] for answer in answers if answer["ok"] is None]
    return f"recovery could not be measured: {'; '.join(unknown) or 'the run was stopped'}"


class _Renewer(threading.Thread):
    """Renews a fault's lease while it is held; when this process dies, so does the fault."""

    def __init__(self, fault: Fault, refused: Callable[[Exception], None]) -> None:
        super().__init__(name="lease", daemon=True)
        self._fault = fault
        self._refused = refused
        self._said = ""
        self._over = threading.Event()
        self._late = threading.Event()
        self.start()

    def run(self) -> None:
        """Renews until told to stop; what was refused is told once, and asked again: the next verification tells the tale."""
        while not self._over.wait(RENEW_S):
            self._do(lambda: self._fault.apply(LEASE_S))
        if self._late.is_set():
            self._do(self._fault.heal)  # it may have acted once more after it was healed

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._said = ""
        except Exception as error:  # noqa: BLE001 — the fault acts, and no other target's lease may run out because of this one
            if self._said != str(error):
                self._said = str(error)
                self._refused(error)

    def stop(self) -> bool:
        """Returns when no renewal can follow any more, or, False, when the last one hangs: then it is healed once more after that."""
        self._over.set()
        self.join(RENEWED_S)
        self._late.set()
        return not self.is_alive()
