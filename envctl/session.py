"""The steps of `envctl ci`, each a function that takes what the one before it made."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from envctl import __version__, plugins
from envctl.errors import CancelledError, EnvctlError, Exit, NoEnvironmentError, ResourceError, UsageError, of_system
from envctl.model.environment import Environment
from envctl.model.plan import Plan
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.seed import Seed
from envctl.model.verdict import EXITS, Verdict
from envctl.record import EVENTS, RunManifest
from envctl.runner.follow import Follower
from envctl.spec.contracts import contract_files
from envctl.stack import diagnostics, lock
from envctl.stack.requirements import versions_of
from envctl.substrates.base import Process, Reach
from envctl.toolchain import cache_dir
from envctl.toolchain.lookup import find

if TYPE_CHECKING:
    from envctl.seeding import Snapshot
    from envctl.stack.operations import Up

RUNS = Path(".envctl") / "runs"
KILLED = 128  # exit statuses above say which signal ended a process


class StepLine(Protocol):
    """One line of progress."""

    def update(self, text: str) -> None:
        """What the step is doing now."""

    def note(self, text: str) -> None:
        """Something that happened and stays on the screen."""

    def done(self, text: str, *, ok: bool | None = True) -> None:
        """The step's result."""


class Steps(Protocol):
    """Where progress goes."""

    def step(self, name: str) -> AbstractContextManager[StepLine]:
        """A step from its begin to its end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for on the command line; empty and zero mean what the project says."""

    full: bool = False
    only: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()
    base: str = ""
    substrate: str = ""
    ttl_s: float = 0.0
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
    from envctl.planner import plan_project
    from envctl.spec import load_scenario, load_seed, load_topology, seed_file

    topology = load_topology(project.topology_file)
    scenario = load_scenario(scenario_file, topology, seeds=project.seeds) if scenario_file else None
    if scenario is not None:
        scenario = scenario if asked.rng_seed is None else replace(scenario, rng_seed=asked.rng_seed)
        if scenario.seed:
            load_seed(seed_file(project, scenario.seed), topology)  # refused now, not when everything is up
        for tool in {tool for spec in scenario.faults for tool in plugins.load("envctl.faults", spec.fault).tools}:
            find(tool)  # likewise
    plan = plan_project(project, topology, scenario, asked=asked.only, stubs=asked.stubs, full=asked.full, base=asked.base,
                        substrate=asked.substrate, ttl_s=asked.ttl_s, digests=source_digests(topology))
    return plan, scenario


def snapshot(project: Project, plan: Plan, scenario: Scenario, line: StepLine) -> Snapshot | None:
    """Seeded data to start from, made when it is not in the cache; None for a scenario without a seed."""
    if not scenario.seed:
        return None
    from envctl.seeding import prepare

    return prepare(plan, seed_named(project, plan, scenario.seed), line.update)


def seed_named(project: Project, plan: Plan, name: str) -> Seed:
    """The project's seed of that name."""
    from envctl.spec import load_seed, seed_file

    return load_seed(seed_file(project, name), plan.topology)


def bring_up(plan: Plan, asked: Asked, seed_key: str | None, line: StepLine) -> Up:
    """The environment of the plan, ready, and what that took.  `seed_key` None keeps the seeded data that is there."""
    from envctl.stack import bring_up as up

    check_published(plan, asked.publish)
    made = up(plan, seed_key=seed_key, ready_timeout_s=asked.ready_timeout_s, progress=line.update, publish=asked.publish)
    line.done(", ".join((f"{len(made.environment.nodes)} nodes ready", *_differences(made))))
    return made


def check_published(plan: Plan, names: Sequence[str]) -> None:
    """Refuses what can't be published.  Raises UsageError."""
    for name in names:
        if name not in plan.components:
            raise UsageError(f"no component of this environment is called {name!r}", hint=plugins.nearest(name, plan.components))
        if plan.topology.components[name].kind == "kafka":
            raise UsageError(
                f"{name} can't be published: its brokers send clients to names that are known only inside",
                hint=f"`envctl exec {name}-0 -- …` runs a command beside them",
            )


def _differences(made: Up) -> Iterator[str]:
    if made.unchanged:
        yield "nothing to do"
    elif len(made.started) < len(made.environment.nodes):
        yield from (f"{len(names)} {what}" for names, what in ((made.started, "started"), (made.ended, "removed")) if names)


def seed(project: Project, plan: Plan, name: str, environment: Environment, kept: Snapshot | None, line: StepLine) -> None:
    """The seed is in the environment, and verified."""
    from envctl.seeding import load_seed_into

    reach = plugins.load("envctl.substrates", environment.substrate).attach(environment.directory)
    data = seed_named(project, plan, name)
    with diagnostics.kept(plan):
        loaded = load_seed_into(reach, plan.topology, data, plan.components, line.update, expected=kept.found if kept else None)
    line.done(f"{loaded.seed}: {loaded.rows:,} rows, {loaded.messages:,} messages, {loaded.source}")


def run_scenario(project: Project, plan: Plan, scenario: Scenario, environment: Environment, line: StepLine,
                 interrupts: Interrupts) -> Path:
    """Runs the scenario inside the environment; returns the run's directory with its record."""
    directory = new_run(project, plan, scenario, environment)
    reach = plugins.load("envctl.substrates", environment.substrate).attach(environment.directory)
    argv = [sys.executable, "-P", "-m", "envctl.runner", str(directory), environment.substrate, str(environment.directory)]
    lifeline, ours = os.pipe()  # a byte cancels the run, and so does its end: when we die, however we die
    try:
        with (directory / "runner.log").open("wb") as log:
            process = reach.popen(None, argv, stdin=lifeline, stdout=log, stderr=log)
        status = Follower(directory, line).until_ended(_Cancelling(process, ours, interrupts))
    finally:
        os.close(lifeline)
        os.close(ours)
        keep_logs(reach, environment, directory)
    if status and interrupts.count:
        raise CancelledError("cancelled before there was anything to judge")
    if status > KILLED and (directory / EVENTS).exists():
        line.note(f"the runner was killed (status {status}); what it had recorded is judged")
    elif status:
        raise _why(directory, status)
    return directory


@dataclass(slots=True)
class _Cancelling:
    """Polls the runner and passes a cancellation on, once: a pipe keeps it for a runner that is still starting."""

    process: Process
    lifeline: int
    interrupts: Interrupts
    told: bool = False

    def __call__(self) -> int | None:
        if self.interrupts.count and not self.told:
            self.told = True
            with suppress(BrokenPipeError):
                os.write(self.lifeline, b"c")
        return self.process.poll()


def new_run(project: Project, plan: Plan, scenario: Scenario, environment: Environment) -> Path:
    """The run's directory: the manifest and copies of every input, saved before anything happens."""
    now = datetime.now(UTC)
    run_id = f"{now:%Y-%m-%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{scenario.name}"
    directory = project.root / RUNS / run_id
    (directory / "inputs").mkdir(parents=True)
    ignore = project.root / ".envctl" / ".gitignore"
    ignore.write_text("*\n", encoding="utf-8")
    copy_inputs(plan, scenario, directory / "inputs")
    RunManifest(
        id=run_id, scenario=scenario.name, stack=plan.topology.name, env_id=plan.env_id, commit=git(project.root, "rev-parse", "HEAD"),
        branch=git(project.root, "rev-parse", "--abbrev-ref", "HEAD"), rng_seed=scenario.rng_seed, started_at=now.timestamp(),
        clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns(), scenario_file=_relative(scenario.file, project.root),
        components=plan.selected, stubbed=plan.stubbed, left_out=plan.left_out, nodes=environment.nodes,
        versions={"envctl": __version__, "python": platform.python_version()} | versions_of(plan), seed=scenario.seed,
        machine={"system": platform.system(), "kernel": platform.release().split("-")[0],
                                        "cores": os.cpu_count() or 0},
    ).save(directory)
    return directory


def copy_inputs(plan: Plan, scenario: Scenario, inputs: Path) -> None:
    """Topology, contracts, scenario and traffic as they are now, under the names that reading a record expects."""
    shutil.copy(plan.topology.file, inputs / "topology.yaml")
    for file in contract_files(plan.topology.directory):
        copy = inputs / file.relative_to(plan.topology.directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    shutil.copy(scenario.file, inputs / "scenario.yaml")
    shutil.copy(scenario.traffic.file, inputs / "traffic.jsonl")


def git(root: Path, *arguments: str) -> str:
    """What git answers, or an empty text where there is no repository."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _why(directory: Path, status: int) -> EnvctlError:
    """The runner's own error, with its exit code."""
    left = directory / "error.json"
    if left.exists():
        said = json.loads(left.read_text(encoding="utf-8"))
        error = EnvctlError(said["message"], hint=said["hint"])
        error.exit_code = Exit(said["exit_code"])
        return error
    if status > KILLED:
        return ResourceError(f"the runner was killed before its first event (status {status})", hint="run the same command again")
    tail = "\n".join((directory / "runner.log").read_text(errors="replace").splitlines()[-5:])
    return EnvctlError(f"the runner ended with status {status}\n{tail}", hint=f"its record is in {directory}")


def keep_logs(reach: Reach, environment: Environment, directory: Path) -> None:
    """Copies every node's log into the run's directory; an environment that has gone keeps nothing from us."""
    (directory / "logs").mkdir(exist_ok=True)
    for node in environment.nodes:
        with suppress(EnvctlError, OSError), (directory / "logs" / f"{node.name}.log").open("wb") as kept:
            for part in reach.logs(node.name):
                kept.write(part.read_bytes())


def finish(directory: Path, project: Project, line: StepLine) -> Verdict:
    """The verdict of a record, saved beside it; telemetry is flattened first, because judging reads that."""
    from envctl import gate
    from envctl.record import Record
    from envctl.telemetry.store import flatten

    if (directory / "telemetry").is_dir():  # a run that was cut short kept none, which is not the same as none being there
        line.update("flattening telemetry")
        flatten(directory / "telemetry")
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
        parts.append(f"{good} of {len(found)} {group}")
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


def ci(project: Project, scenario_file: Path, asked: Asked, steps: Steps, interrupts: Interrupts, attempt: int = 1) -> Outcome:
    """Plan, up, seed, run, judge, report, down; the last one whatever happened before.  Raises EnvctlError.

    A further attempt gets a fresh environment, also where the one before was kept.
    """
    with steps.step("plan") as line:
        plan, scenario = make_plan(project, scenario_file, asked)
        assert scenario is not None
        line.done(told(plan))
    with lock.hold(cache_dir(), f"{plan.env_id}.run", "run"):
        if attempt > 1 and asked.keep:
            with steps.step("down") as line:
                down(project, plan, line)
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
        environment = bring_up(plan, asked, kept.key if kept else "", line).environment
    if scenario.seed:
        with steps.step("seed") as line:
            seed(project, plan, scenario.seed, environment, kept, line)
    with interrupts.bearing(1):
        with steps.step("run") as line:
            directory = run_scenario(project, plan, scenario, environment, line, interrupts)
        with steps.step("judge") as line:
            verdict = finish(directory, project, line)
        with steps.step("report") as line:
            line.done(str(report(directory)))
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


def told(plan: Plan) -> str:
    """`9 of 14 components: orders changed; bus, shop-db needed; fraud stubbed (unverified)`."""
    reasons: dict[str, list[str]] = {}
    for selection in plan.selected:
        reasons.setdefault(selection.why, []).append(selection.component)
    parts = [f"{_some(names)} {why}" for why, names in reasons.items()]
    parts += [f"{', '.join(plan.stubbed)} stubbed (unverified)"] if plan.stubbed else []
    return f"{len(plan.selected)} of {len(plan.topology.components)} components: {'; '.join(parts)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def report(directory: Path) -> Path:
    """Writes all forms of the report; returns the page's path."""
    from envctl.report import write_all

    return write_all(directory)


def down(project: Project, plan: Plan, line: StepLine) -> None:
    """Removes the environment and proves it.  Raises LeakError."""
    from envctl.stack import tear_down

    try:
        gone = tear_down(plan.env_id, project=project.root, substrate=plan.substrate, progress=line.update)
    except NoEnvironmentError:
        line.done("nothing was made")
        return
    line.done("; ".join(("nothing left", *gone.notes)))
