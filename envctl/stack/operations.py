"""Brings a plan up, and an environment down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from envctl.errors import CancelledError, CapabilityError, EnvctlError, LeakError, NoEnvironmentError, ResourceError, UsageError
from envctl.spec import state_directory
from envctl.stack import lock, memo
from envctl.stack.memo import Memo, labels_of
from envctl.stack.state import State, pulumi_project, states_of
from envctl.stack_provider.ground import Substrates, Tally, begin, installed, is_up
from envctl.toolchain.tool import cache_dir
from envctl.waiting import unheard, until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from envctl.engines.base import Realisation
    from envctl.model.environment import Environment
    from envctl.model.plan import Plan
    from envctl.substrates.base import Found, Reach, Realiser, Substrate

Progress = Callable[[str], None]
Realise: TypeAlias = "Callable[[], Sequence[Realisation]]"
CREATION_S = 15.0
CLOCKS_S = 120.0  # how far the clock of a machine that keeps an environment may be from this one's; what answers ends by itself in time
ANSWER_S = 5.0


def silent(_: str) -> None:
    """Progress for nobody."""


@dataclass(frozen=True, slots=True)
class Up:
    """An environment that was brought up, and what that took."""

    environment: Environment
    unchanged: bool  # the census passed: no engine was called
    started: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    provisioned: tuple[str, ...] = ()


def bring_up(
    plan: Plan, *, seed_key: str | None = "", ready_timeout_s: float = 120.0, progress: Progress = silent,
    publish: Collection[str] = (), substrates: Substrates = installed, realise: Realise | None = None,
) -> Up:
    """Makes the environment of `plan`, or brings it up to date; renews its lease.

    Only what differs from what is alive is touched; when nothing does, no engine is called.  `seed_key` names a snapshot
    that engines start from (None: the one that the living environment started from, if any, so that no data is replaced).  Ports of services are published on the host's loopback, those of other components when `publish`
    names them.  `substrates` and `realise` replace the installed substrates and engines.  Raises CapabilityError
    for what the machine lacks, ResourceError or DeadlineError of the node that could not be made (the others stay, the next
    call continues; a bundle of diagnostics is left), CancelledError on SIGINT.
    """
    from envctl.stack import diagnostics

    work = _Update(
        plan, seed_key=seed_key, ready_timeout_s=ready_timeout_s, progress=progress, publish=publish, substrates=substrates,
        realise=realise,
    )
    with lock.hold(lock.environments_directory(), plan.env_id, "up", progress=progress):
        environment = work.unchanged()
        if environment is not None:
            return Up(environment, unchanged=True)
        try:
            with diagnostics.kept(plan, substrates):
                tally = work.run()
        except (KeyboardInterrupt, CancelledError) as error:
            raise work.cancelled() from error
        return Up(work.described(), False, tuple(tally.started), tuple(tally.ended), tuple(tally.provisioned))


def check_published(plan: Plan, names: Sequence[str]) -> None:
    """Refuses what can't be published.  Raises UsageError."""
    for name in names:
        if name not in plan.components:
            from envctl.plugins import nearest

            raise UsageError(f"no component of this environment is called {name!r}", hint=nearest(name, plan.components))
        if plan.topology.components[name].kind == "kafka":
            raise UsageError(
                f"{name} can't be published: its brokers send clients to names that are known only inside",
                hint=f"`envctl exec {name}-0 -- …` runs a command beside them",
            )


class _Update:
    """One `bring_up`, under the environment's lock."""

    def __init__(
        self, plan: Plan, *, seed_key: str | None, ready_timeout_s: float, progress: Progress, publish: Collection[str],
        substrates: Substrates, realise: Realise | None,
    ) -> None:
        self._plan, self._seed_key, self._ready_timeout_s = plan, seed_key or "", ready_timeout_s
        self._keeps_seed = seed_key is None
        self._progress, self._substrates, self._published = progress, substrates, publish
        self._substrate = substrates(plan.substrate)
        self._realise = realise or self._by_engines
        stack = plan.topology.directory
        self._directory = self._substrate.directory(plan.env_id)
        self._state = State(state_directory(plan.project), pulumi_project(stack), plan.env_id)
        self._notebook = self._substrate.notebook(self._directory)
        self._memo = Memo(plan.substrate, str(stack), str(self._state.root), self._state.project)

    def _reach(self) -> Reach:
        return self._substrate.attach(self._directory)

    def unchanged(self) -> Environment | None:
        """The environment, its lease renewed, when it is what the plan asks for; otherwise None."""
        try:
            reach = self._reach()
            environment = reach.environment()
        except NoEnvironmentError:
            return None
        known = memo.read(self._notebook)
        if self._keeps_seed and known is not None:
            self._seed_key = known.variant
        if known is None or not known.covers(self._plan.digest, self._seed_key, environment):
            return None
        if self._published:
            self._publish(reach, environment)
            environment = reach.environment()
        return replace(environment, expires_at=reach.renew(self._plan.ttl_s))

    def run(self) -> Tally:
        """Calls the engine.  The cell is made and nodes are prepared while the engine starts."""
        from concurrent.futures import wait

        self._refuse_elsewhere()
        self._forget_what_ended()
        if self._realise == self._by_engines:
            from envctl.stack import requirements

            requirements.require(self._plan)
        over = threading.Event()
        begin(lambda: self._keep_alive(over))
        prepared = begin(self._realise)
        realiser = self._substrate.realiser(self._directory)  # here: an import that is interrupted may block another thread's
        cell = begin(lambda: self._create(realiser))
        try:
            return self._by_the_engine(cell, prepared)
        finally:
            over.set()
            wait([cell], CREATION_S)  # whoever cancels must find what was made, or nothing would ever remove it

    def _refuse_elsewhere(self) -> None:
        """An environment is on one substrate at a time: its state and its ids are the same on all."""
        for name in self._substrates.names():
            found: Sequence[Found] = ()
            with suppress(CapabilityError):  # what does not answer now has nothing that could be in the way
                found = self._substrates(name).environments(self._plan.env_id) if name != self._plan.substrate else ()
            if any(each.directory.resolve() == self._directory.resolve() for each in found):
                raise UsageError(f"{self._plan.env_id} is on the substrate {name}", hint=f"`envctl down {self._plan.env_id}` removes it there")

    def _forget_what_ended(self) -> None:
        """An environment that has ended by its lease, or by another's hand, took with it what other providers had made there."""
        if self._state.below_ours():
            self._state.settle_locks(self._progress)
            try:
                self._reach()
            except NoEnvironmentError:
                self._state.forget_below_ours()

    def _keep_alive(self, over: threading.Event) -> None:
        """An update is a use from its begin to its end, also while something is built and nobody asks the environment for anything."""
        while not over.wait(self._plan.ttl_s / 3):
            with suppress(EnvctlError, OSError):
                self._reach().renew(self._plan.ttl_s)

    def _by_the_engine(self, cell: Future[None], prepared: Future[Sequence[Realisation]]) -> Tally:
        with unheard():  # an import that is interrupted half-way may block other threads' for ever
            from envctl.stack import engine, program
            from envctl.stack_provider.provider import EnvctlProvider
            from envctl.toolchain import lookup

        def both() -> Sequence[Realisation]:
            cell.result()  # the environment's own resource adopts what was made here
            return prepared.result()

        plan = self._plan
        self._state.settle_locks(self._progress)
        provider = EnvctlProvider(self._substrates, self._progress)
        deployment = program.deployment_of(plan, self._substrate, self._ready_timeout_s, both)
        inline = program.as_program(deployment, plan.topology.directory)
        pulumi = lookup.find("pulumi").programs["pulumi"]
        try:
            engine.update(pulumi, self._state, provider, inline, cwd=plan.topology.directory, cache=cache_dir())
        except NoEnvironmentError as error:
            raise ResourceError(f"{plan.env_id} ended while it was brought up", hint="run the same command again") from error
        except ResourceError:
            for cause in (cell, prepared):  # rather than what the engine says about its program
                if cause.done():
                    cause.result()
            raise
        provider.settle()
        self._finish(prepared.result())
        return provider.tally

    def cancelled(self) -> CancelledError:
        """What to tell whoever cancelled: what is there now."""
        try:
            nodes = self._reach().environment().nodes
        except NoEnvironmentError:
            return CancelledError("cancelled before anything was made")
        count = sum(is_up(node) for node in nodes)
        return CancelledError(
            f"cancelled; {self._plan.env_id} is there with {count} nodes up", hint="`envctl up` continues, `envctl down` removes it"
        )

    def described(self) -> Environment:
        """The environment as it is after `run`."""
        return self._reach().environment()

    def _create(self, realiser: Realiser) -> None:
        plan = self._plan
        realiser.create_environment(plan.env_id, ttl_s=plan.ttl_s, labels=labels_of(plan))
        replace(self._memo, variant=self._seed_key).write(self._notebook)

    def _finish(self, realisations: Sequence[Realisation]) -> None:
        reach = self._reach()
        reach.renew(self._plan.ttl_s)
        self._publish(reach, reach.environment())
        nodes = {spec.name: spec.digest for each in realisations for spec in each.nodes}
        complete = replace(self._memo, plan_digest=self._plan.digest, nodes=nodes, variant=self._seed_key)
        complete.write(self._notebook)

    def _publish(self, reach: Reach, environment: Environment) -> None:
        """Engines trust whoever reaches them, which on the host is every user: they are published only when somebody asks."""
        for node in environment.nodes:
            if node.name.endswith("-0") and (node.kind == "service" or node.component in self._published):
                for port, number in node.ports.items():
                    reach.publish(f"{node.component}.{port}", node.name, number)

    def _by_engines(self) -> Sequence[Realisation]:
        from envctl.stack.program import realised

        return realised(self._plan, self._substrate, cache_dir(), self._seed_key)


@dataclass(frozen=True, slots=True)
class Down:
    """An environment that was removed.  `notes` say what was not as it should have been, such as a state that was lost."""

    env_id: str
    notes: tuple[str, ...] = ()


def tear_down(
    env_id: str, *, directory: Path | None = None, project: Path | None = None, substrate: str = "", only_if_over: bool = False,
    progress: Progress = silent, substrates: Substrates = installed,
) -> Down:
    """Removes an environment and proves by a census that nothing is left.

    The environment is ended by its substrate (empty: whichever it is found on); the engine is called only when the state
    holds resources of other providers.  Works where the state is lost or the environment is dead.  `project` is where to look for the state when the
    environment does not say.  `directory`: where it was found (None: ours; one of the same id elsewhere is left alone).
    `only_if_over` keeps an environment that is alive after all, and a state that can't be read or is not envctl's; otherwise
    such a state is a ResourceError and nothing is removed.  Raises NoEnvironmentError when there is neither, LeakError with what is left.
    """
    envs = lock.environments_directory(directory)
    with lock.hold(envs, env_id, "down", progress=progress):
        lock.sweep(envs)
        home = envs / env_id
        places = _answering(env_id, substrates, substrate, _states(env_id, None, project))
        found = [(place, each) for place, there in places for each in there if each.directory.resolve() == home.resolve()]
        known = next((note for place, _ in found if (note := memo.read(place.notebook(home)))), None)
        states = _states(env_id, known, project)
        if not found and not states:
            raise NoEnvironmentError(f"there is no environment {env_id}", hint="`envctl list` shows what there is")
        if only_if_over and any(_is_alive(place, each) for place, each in found):
            return Down(env_id, ("it is alive again, and was kept",))
        kept = tuple(each for each in map(State.objection, states) if each)
        if kept and not only_if_over:
            raise ResourceError(f"{kept[0]}: nothing was removed", hint=f"if nothing in it is alive, `pulumi stack rm {env_id}` forgets it")
        states = tuple(state for state in states if not state.objection())
        for state in states:
            state.settle_locks(progress)
            _destroy_foreign(state, known, substrates, progress)
        for place, there in (*((place, each.directory) for place, each in found), *((place, home) for place in _ended_on(places, found, states))):
            place.realiser(there).end_environment()
        for state in states:
            state.drop()
        left = [line for place, _ in places for line in place.census(home)]
        left += [f"state {path}" for state in states for path in state.leftovers()]
        if left:
            raise LeakError(f"{env_id} left {len(left)} behind\n" + "\n".join(f"  {line}" for line in left))
        return Down(env_id, _notes(alive=any(each.alive for _, each in found), states=states, kept=kept))


def _answering(env_id: str, substrates: Substrates, named: str, states: Iterable[State]) -> list[tuple[Substrate, Sequence[Found]]]:
    """The substrates to look on, each with what is there: one that is named, or all that can be asked.

    One that can't be is an error only where a state says that something was made on it: it may still be there.
    """
    places: list[tuple[Substrate, Sequence[Found]]] = []
    used = {name for state in states for name in state.substrates()}
    for name in [named] if named else substrates.names():
        try:
            places.append((substrates(name), substrates(name).environments(env_id)))
        except CapabilityError:
            if named or name in used:
                raise
    return places


def _ended_on(places: Iterable[tuple[Substrate, Sequence[Found]]], found: Sequence[tuple[Substrate, Found]], states: Iterable[State]) -> list[Substrate]:
    """The substrates of which the state alone knows: whoever was killed while it ended the environment there has not come to what is shared with others."""
    used = {name for state in states for name in state.substrates()} - {place.name for place, _ in found}
    return [place for place, _ in places if place.name in used]


def _notes(*, alive: bool, states: Sequence[State], kept: Sequence[str]) -> tuple[str, ...]:
    notes = () if alive else ("it had already ended; what was left of it is removed",)
    if kept:
        return (*notes, *(f"its Pulumi state was kept: {why}" for why in kept))
    return notes if states else (*notes, "its Pulumi state was lost; it was found by what is alive")


def _states(env_id: str, known: Memo | None, project: Path | None) -> tuple[State, ...]:
    roots = {Path(known.state_root)} if known else set()
    if project is not None:
        roots.add(state_directory(project))
    return states_of(env_id, roots)


def answering(substrate: Substrate, found: Found) -> Environment | None:
    """What there is of an environment that was found; None when it is dead.  One that is just being made gets a moment to answer."""
    there: list[Environment] = []

    def look() -> bool:
        with suppress(NoEnvironmentError):
            there.append(substrate.attach(found.directory).environment())
        return bool(there)

    until(look, ANSWER_S if found.alive else 0)
    return there[0] if there else None


def lasts(expires_at: float) -> bool:
    """Whether a lease may still last, by a clock that may be another machine's."""
    return expires_at > time.time() - CLOCKS_S


def _is_alive(substrate: Substrate, found: Found) -> bool:
    environment = answering(substrate, found)
    return environment is not None and lasts(environment.expires_at)


def _destroy_foreign(state: State, known: Memo | None, substrates: Substrates, progress: Progress) -> None:
    foreign = state.foreign()
    if not foreign:
        return
    from envctl.stack import engine
    from envctl.stack_provider.provider import EnvctlProvider
    from envctl.toolchain import lookup

    if known is None:
        raise ResourceError(
            f"the state of {state.stack} holds {len(foreign)} resources of other providers, first {foreign[0]}",
            hint=f"run `pulumi destroy --stack {state.stack}` in the stack's directory, then again",
        )
    progress(f"destroys {len(foreign)} resources of other providers")
    pulumi = lookup.find("pulumi").programs["pulumi"]
    engine.destroy(pulumi, state, EnvctlProvider(substrates, progress), cwd=Path(known.stack_directory), cache=cache_dir())
