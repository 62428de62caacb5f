"""The steps of `envctl ci`, each a function that takes what the one before it made."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from envctl import plugins
from envctl.errors import (
    CancelledError,
    CapabilityError,
    EnvctlError,
    Exit,
    NoEnvironmentError,
    SpecError,
    UsageError,
    of_system,
)
from envctl.model.environment import Environment
from envctl.model.plan import Ask, Plan
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.seed import Seed
from envctl.model.verdict import EXITS, Verdict
from envctl.record import EVENTS, new_run
from envctl.runner.follow import INDENT, Shown
from envctl.runner.launch import KILLED, run_inside, why
from envctl.stack import diagnostics, lock
from envctl.stack.requirements import require_ground, versions_of
from envctl.substrates.base import LOST

if TYPE_CHECKING:
    from envctl.seeding import Snapshot
    from envctl.stack.operations import Up
    from envctl.substrates.base import Substrate

GROUPS = {"check": "checks", "slo": "objectives", "fault": "faults"}


class Steps(Protocol):
    """Where progress goes."""

    def step(self, name: str) -> AbstractContextManager[Shown]:
        """A step from its begin to its end."""


@dataclass(frozen=True, slots=True)
class Asked(Ask):
    """What the user asked for on the command line, of the plan and of what is done with it."""

    rng_seed: int | None = None
    ready_timeout_s: float = 120.0
    keep: bool = False
    publish: tuple[str, ...] = ()


@dataclass(slots=True)
class Interrupts:
    """Counts Ctrl-C: the first one cancels the run (it heals and is judged), the second one goes straight to teardown."""

    count: int = 0
    _borne: float = 0  # how many are only counted; the next one raises CancelledError wherever we are

    def install(self) -> None:
        """Takes over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hit)

    def _hit(self, *_: object) -> None:
        self.count += 1
        if self.count > self._borne:
            raise CancelledError("cancelled")

    @contextmanager
    def bearing(self, count: float) -> Iterator[None]:
        """Meanwhile so many since the start are only counted, and whoever is at work looks at `count`."""
        before, self._borne = self._borne, count
        try:
            yield
        finally:
            self._borne = before


def make_plan(project: Project, scenario_file: Path | None, asked: Asked) -> tuple[Plan, Scenario | None]:
    """Which components are in, and why."""
    from envctl.engines.sources import source_digests
    from envctl.planner.project import plan_project
    from envctl.spec import load_scenario, load_seed, load_topology, seed_file
    from envctl.spec.manifests import told
    from envctl.spec.topology_rules import unpackaged

    topology = load_topology(project.topology_file)
    scenario = load_scenario(scenario_file, topology, seeds=project.seeds, rng_seed=asked.rng_seed) if scenario_file else None
    if scenario is not None and scenario.seed:
        load_seed(seed_file(project, scenario.seed), topology)  # refused now, not when everything is up
    plan = plan_project(project, topology, scenario, asked, digests=source_digests(topology))
    place = plugins.load("envctl.substrates", plan.substrate)
    runs_manifests = "manifests" in place.powers
    if problems := unpackaged(topology, plan.components, place.packaging, manifests=runs_manifests):
        raise SpecError(list(problems))
    if runs_manifests:
        plan = replace(plan, notes=(*plan.notes, *told(topology, plan.components)))
    if scenario is not None:
        _require_powers(scenario, place)
        plan = _with_disks(plan, scenario)
    if scenario is not None and scenario.faults:
        tools = dict.fromkeys(tool for spec in scenario.faults for tool in plugins.load("envctl.faults", spec.fault).tools)
        require_ground(plan.substrate, tuple(tools))  # likewise
    return plan, scenario


def _with_disks(plan: Plan, scenario: Scenario) -> Plan:
    """The plan with what the scenario's faults need of nodes from their birth."""
    kinds = ((spec, plugins.load("envctl.faults", spec.fault)) for spec in scenario.faults)
    disks = {name: size for spec, kind in kinds if hasattr(kind, "disks") for name, size in kind.disks(spec.params).items()}
    return replace(plan, disks=disks, digest=f"{plan.digest}-{sorted(disks.items())}") if disks else plan


def _require_powers(scenario: Scenario, place: Substrate) -> None:
    """Raises CapabilityError with every power that the scenario or one of its faults needs and the substrate does not have."""
    needed = dict.fromkeys(scenario.powers, f"scenario {scenario.name}")
    for spec in scenario.faults:
        needed |= dict.fromkeys(getattr(plugins.load("envctl.faults", spec.fault), "powers", ()), f"fault {spec.fault}")
    reasons = [kind.missing for spec in scenario.faults if hasattr(kind := plugins.load("envctl.faults", spec.fault), "missing")]
    if missing := {power: by for power, by in needed.items() if power not in place.powers}:
        have = [name for name in plugins.names("envctl.substrates") if set(needed) <= plugins.load("envctl.substrates", name).powers]
        raise CapabilityError(
            "\n".join(f"{by} needs the power {power}, which the substrate {place.name} does not have" for power, by in missing.items()),
            hint=f"`--substrate {have[0]}` has it" if have else reasons[0] if reasons else "no substrate has all that it needs",
        )


def snapshot(project: Project, plan: Plan, scenario: Scenario, line: Shown) -> Snapshot | None:
    """Seeded data to start from, made when it is not in the cache; None for a scenario without a seed, and where a substrate can't keep it."""
    if not scenario.seed or "snapshots" not in plugins.load("envctl.substrates", plan.substrate).powers:
        return None
    from envctl.seeding import prepare

    return prepare(plan, seed_named(project, plan, scenario.seed), line.update)


def seed_named(project: Project, plan: Plan, name: str) -> Seed:
    """The project's seed of that name."""
    from envctl.spec import load_seed, seed_file

    return load_seed(seed_file(project, name), plan.topology)


def bring_up(plan: Plan, asked: Asked, seed_key: str | None, line: Shown) -> Up:
    """The environment of the plan, ready, and what that took.  `seed_key` None keeps the seeded data that is there."""
    from envctl.stack.operations import bring_up as up
    from envctl.stack.operations import check_published

    check_published(plan, asked.publish)
    made = up(plan, seed_key=seed_key, ready_timeout_s=asked.ready_timeout_s, progress=line.update, publish=asked.publish)
    line.done(", ".join((f"{len(made.environment.nodes)} nodes ready", *_differences(made))))
    return made


def _differences(made: Up) -> Iterator[str]:
    if made.unchanged:
        yield "nothing to do"
    elif len(made.started) < len(made.environment.nodes):
        yield from (f"{len(names)} {what}" for names, what in ((made.started, "started"), (made.ended, "removed")) if names)


def check_seed(project: Project, plan: Plan, name: str) -> None:
    """Refuses a seed for an environment that holds another one, before anything is changed.  Raises UsageError."""
    from envctl.seeding import check_mixing

    place = plugins.load("envctl.substrates", plan.substrate)
    try:
        living = place.attach(place.directory(plan.env_id)).environment()
    except NoEnvironmentError:
        return
    check_mixing(living, seed_named(project, plan, name))


def require_none_up(plan: Plan) -> None:
    """Refuses to go on where the environment of a plan is up, for verbs whose every run needs a fresh one.  Raises UsageError."""
    place = plugins.load("envctl.substrates", plan.substrate)
    try:
        place.attach(place.directory(plan.env_id)).environment()
    except NoEnvironmentError:
        return
    raise UsageError(f"the environment {plan.env_id} is up, and each run needs a fresh one", hint="envctl down")


def seed(project: Project, plan: Plan, name: str, environment: Environment, kept: Snapshot | None, line: Shown) -> None:
    """The seed is in the environment, and verified."""
    from envctl.seeding import load_seed_into

    reach = plugins.load("envctl.substrates", environment.substrate).attach(environment.directory)
    data = seed_named(project, plan, name)
    with diagnostics.kept(plan):
        loaded = load_seed_into(reach, plan.topology, data, plan.components, line.update, kept)
    if loaded.note:
        line.note(f"{INDENT}{loaded.note}")
    line.done(f"{loaded.seed}: {loaded.rows:,} rows, {loaded.messages:,} messages, {loaded.source}")


def run_scenario(plan: Plan, scenario: Scenario, environment: Environment, line: Shown, interrupts: Interrupts) -> Path:
    """Runs the scenario inside the environment; returns the run's directory with its record."""
    directory = new_run(plan, scenario, environment.nodes, versions_of(plan))
    status = run_inside(environment, directory, line, lambda: interrupts.count > 0)
    if status and interrupts.count:
        raise CancelledError("cancelled before there was anything to judge")
    if status == LOST and (directory / EVENTS).exists():
        line.note("the connection to the run was lost; it ended in good order, and what it had recorded is judged")
    elif status > KILLED and (directory / EVENTS).exists():
        line.note(f"the runner was killed (status {status}); what it had recorded is judged")
    elif status:
        raise why(directory, status)
    return directory


def finish(directory: Path, project: Project, line: Shown) -> Verdict:
    """The verdict of a record, saved beside it."""
    from envctl import gate
    from envctl.record import Record
    from envctl.telemetry.store import FILE, flatten

    telemetry = directory / "telemetry"  # the runner makes it readable; one that was killed on the way may not have
    if telemetry.is_dir() and not (telemetry / FILE).exists():
        line.update("flattening telemetry")
        flatten(telemetry)
    line.update("judging")
    verdict = gate.judge(Record.load(directory), gate=project.gate)
    gate.save_verdict(directory, verdict)
    line.done(counted(verdict), ok={"pass": True, "fail": False, "inconclusive": None}[verdict.outcome])
    return verdict


def counted(verdict: Verdict) -> str:
    """How many findings of each group passed."""
    groups = dict.fromkeys(finding.group for finding in verdict.findings)
    parts = []
    for group in groups:
        found = [finding for finding in verdict.findings if finding.group == group]
        good = sum(finding.outcome == "pass" for finding in found)
        parts.append(f"{good} of {len(found)} {GROUPS.get(group, group)}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one scenario ended."""

    verdict: Verdict
    directory: Path
    cancelled: bool = False  # the verdict is on what there was
    left: EnvctlError | None = None  # why the environment could not be removed, or what was left of it

    @property
    def exit_code(self) -> Exit:
        """What a process says that ran this scenario: a proven failure stays one whatever became of the rest."""
        if self.cancelled and self.verdict.outcome != "fail":
            return Exit.CANCELLED
        if self.left is not None and self.verdict.outcome == "pass":
            return self.left.exit_code
        return EXITS[self.verdict.outcome]


def ci(project: Project, scenario_file: Path, asked: Asked, steps: Steps, interrupts: Interrupts, *, fresh: bool = False) -> Outcome:
    """Plan, up, seed, run, judge, report, down; the last one whatever happened before.  Raises EnvctlError.

    `fresh` removes first what another scenario or attempt has kept.
    """
    with steps.step("plan") as line:
        plan, scenario = make_plan(project, scenario_file, asked)
        assert scenario is not None
        line.done(plan.summary)
    with lock.hold(lock.environments_directory(), f"{plan.env_id}.run", "run"):
        if fresh and asked.keep:
            with steps.step("down") as line:
                down(project, plan, line)
        if scenario.seed:
            check_seed(project, plan, scenario.seed)
        return _ci(project, plan, scenario, asked, steps, interrupts)


def _ci(project: Project, plan: Plan, scenario: Scenario, asked: Asked, steps: Steps, interrupts: Interrupts) -> Outcome:
    try:
        outcome = _judged(project, plan, scenario, asked, steps, interrupts)
    except BaseException as error:  # noqa: BLE001 - whatever it is goes on, after teardown
        known = of_system(error) if isinstance(error, OSError) else error
        left = _ended(project, plan, asked, steps, interrupts)
        if left is not None and isinstance(known, EnvctlError):
            known.message = f"{known.message}\n{left.message}"
        raise known  # noqa: B904 - the same, or its translation
    return replace(outcome, left=_ended(project, plan, asked, steps, interrupts))


def _judged(project: Project, plan: Plan, scenario: Scenario, asked: Asked, steps: Steps, interrupts: Interrupts) -> Outcome:
    with steps.step("up") as line:
        kept = snapshot(project, plan, scenario, line)
        environment = bring_up(plan, asked, kept.key if kept else None, line).environment
    if scenario.seed:
        with steps.step("seed") as line:
            seed(project, plan, scenario.seed, environment, kept, line)
    with interrupts.bearing(1):
        with steps.step("run") as line:
            directory = run_scenario(plan, scenario, environment, line, interrupts)
        with steps.step("judge") as line:
            verdict = finish(directory, project, line)
        with steps.step("report") as line:
            line.done(shown(report(directory)))
    return Outcome(verdict, directory, cancelled=interrupts.count > 0)


def _ended(project: Project, plan: Plan, asked: Asked, steps: Steps, interrupts: Interrupts) -> EnvctlError | None:
    """Removes the environment, unless it is to be kept; returns what went wrong: it must not hide a verdict."""
    try:
        if not asked.keep:
            with interrupts.bearing(math.inf), steps.step("down") as line:
                down(project, plan, line)
    except EnvctlError as error:
        return error
    except OSError as error:
        return of_system(error)
    return None


def shown(path: Path) -> str:
    """A path as it is named from here, where it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def report(directory: Path) -> Path:
    """Writes all forms of the report; returns the page's path."""
    from envctl.report import write_all

    return write_all(directory)


def down(project: Project, plan: Plan, line: Shown) -> None:
    """Removes the environment and proves it.  Raises LeakError."""
    from envctl.stack import tear_down

    try:
        gone = tear_down(plan.env_id, project=project.root, substrate=plan.substrate, progress=line.update)
    except NoEnvironmentError:
        line.done("nothing was made")
        return
    line.done("; ".join(("nothing left", *gone.notes)))
