"""Who may live how long: finds environments, and removes those whose time is over.

An environment's expiry counts from its last use and is enforced inside it, so nothing here needs to run for it to end.
`gc` is for what can't end itself: a cell that was killed, a directory or a Pulumi state that it left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from envctl.errors import CapabilityError, NoEnvironmentError, UsageError
from envctl.spec import state_directory
from envctl.stack import lock
from envctl.stack.operations import Down, answering, lasts, tear_down
from envctl.stack.state import states_of
from envctl.stack_provider.ground import Substrates, installed

if TYPE_CHECKING:
    from envctl.model.environment import Environment
    from envctl.substrates.base import Found, Reach, Substrate

CAP = 20  # more deletions at once than this are more likely a mistake than garbage

Health = Literal["alive", "expired", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One environment of this machine."""

    id: str
    substrate: str
    health: Health
    directory: Path
    environment: Environment | None  # None when it does not answer
    why: str = ""  # of what can't be known


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that `gc` may remove, and why."""

    env_id: str
    substrate: str
    why: str
    directory: Path | None = None  # None: there is none


def env_id_here(project_root: Path) -> str:
    """The id of this checkout's environment."""
    from envctl.planner.changes import repository
    from envctl.planner.identity import environment_id

    checkout = repository(project_root)
    return environment_id(project_root, checkout.name, checkout.ref)


def ids_of(project_root: Path) -> tuple[str, ...]:
    """The environment of this checkout, and those in which somebody was killed who made a snapshot."""
    here, making = env_id_here(project_root), _making(project_root)
    if not making:
        return (here,)
    from envctl.seeding.snapshots import abandoned

    return (here, *sorted(filter(abandoned, making)))


def _making(project_root: Path) -> set[str]:
    """The environments of this cache in which a snapshot is made, or was, by directories where snapshots can be made, and by states."""
    from envctl.planner.identity import MAKING

    ours = lock.environments_directory().resolve()  # somebody else's snapshots have their locks in somebody else's cache
    making = {state.stack for state in states_of(f"{MAKING}*", [state_directory(project_root)])}
    there = _found(place for place in map(installed, installed.names()) if "snapshots" in place.powers)
    return making | {found.id for found in there if found.id.startswith(MAKING) and found.directory.parent.resolve() == ours}


def _found(places: Iterable[Substrate], env_id: str = "") -> Iterator[Found]:
    """What lives on those that answer (or only what is called so)."""
    for place in places:
        with suppress(CapabilityError):
            yield from place.environments(env_id)


def locate(env_id: str, *, substrates: Substrates = installed) -> tuple[Reach, Environment]:
    """A living environment by its id.  Raises NoEnvironmentError."""
    silent = []
    for name in substrates.names():
        substrate = substrates(name)
        try:
            reach = substrate.attach(substrate.directory(env_id))
            return reach, reach.environment()
        except NoEnvironmentError:
            continue
        except CapabilityError:
            silent.append(name)
    hint = "; ".join(("`envctl up` makes one, `envctl list` shows all", *(f"{name} does not answer" for name in silent)))
    raise NoEnvironmentError(f"there is no living environment {env_id}", hint=hint)


def survey(*, substrates: Substrates = installed, silent: Callable[[str], None] | None = None, ask: bool = True) -> tuple[Seen, ...]:
    """Every environment of this machine, found by what is alive.

    `ask`: each is asked what it is, even where its substrate knows that its lease lasts.  An error of a substrate is an error here,
    unless `silent` is to be told that one does not answer.
    """
    seen: list[Seen] = []
    for name in substrates.names():
        try:
            seen += [each for found in substrates(name).environments() if (each := _seen(found, name, substrates, ask))]
        except CapabilityError as error:
            if silent is None:
                raise
            silent(f"{name}: {error.message}")
    return tuple(seen)


def _seen(found: Found, name: str, substrates: Substrates, ask: bool) -> Seen | None:
    """None: it has ended since it was found."""
    if not ask and found.alive and found.expires_at is not None and found.expires_at > time.time():
        return Seen(found.id, name, "alive", found.directory, None)
    if found.unknown:
        return Seen(found.id, name, "unknown", found.directory, None, found.unknown)
    if (environment := answering(substrates(name), found)) is not None:
        return Seen(found.id, name, "alive" if lasts(environment.expires_at) else "expired", found.directory, environment)
    if found.alive and not any(again.directory == found.directory for again in substrates(name).environments(found.id)):
        return None
    if not found.alive or (found.expires_at is None and not found.apart):
        return Seen(found.id, name, "dead", found.directory, None)
    # Its keeper may be on its way to another machine, or be reached only from elsewhere: as long as its lease may last it is not given up.
    lasting = found.expires_at is None or lasts(found.expires_at)
    return Seen(found.id, name, "unknown" if lasting else "expired", found.directory, None, "it does not answer")


def whereabouts(env_id: str) -> Path | None:
    """The directory of an environment that lives in another cache only; None where it is ours, or nowhere."""
    ours = lock.environments_directory().resolve() / env_id
    if ours.is_dir() and not ours.is_symlink():
        return None  # nobody else need be asked
    there = [found.directory for found in _found(map(installed, installed.names()), env_id)]
    return there[0] if there and ours not in {directory.resolve() for directory in there} else None


def in_use(seen: Seen) -> str:
    """Which command works on an environment (an update, or a run), also one with another cache; empty for none."""
    envs = lock.environments_directory(seen.directory)
    return next((lock.owner(envs, name) for name in (seen.id, f"{seen.id}.run") if lock.is_held(envs, name)), "")


def garbage(project: Path | None, *, substrates: Substrates = installed) -> tuple[Garbage, ...]:
    """What is over: expired or dead environments that nobody works on, and states of environments that no longer exist.

    A state with resources of other providers is never garbage, because they may be alive; nor is one that can't be read or
    that does not show to be envctl's, because other projects may use the same backend.
    """
    seen = survey(substrates=substrates, ask=False)
    over = [
        Garbage(each.id, each.substrate, "its lease has run out" if each.health == "expired" else "it died", each.directory)
        for each in seen if each.health in ("expired", "dead") and not lock.is_held(lock.environments_directory(each.directory), each.id)
    ]
    there = {each.id for each in seen}
    stale = [
        Garbage(state.stack, "", "only its Pulumi state is left")
        for state in (states_of("*", [state_directory(project)]) if project else ())
        if state.stack not in there and not state.objection() and not state.foreign() and not lock.is_held(lock.environments_directory(), state.stack)
    ]
    return (*over, *stale)


def collect(
    project: Path | None, *, cap: int = CAP, dry_run: bool = False, progress: Callable[[str], None] = lambda _: None,
    substrates: Substrates = installed,
) -> tuple[tuple[Garbage, ...], tuple[Down, ...]]:
    """Removes the garbage; returns what was found and what became of it.

    Fails closed: whatever can't be listed is an error and nothing is removed.  Raises UsageError, before anything is removed,
    when there is more than `cap`; LeakError when something could not be removed.
    """
    found = garbage(project, substrates=substrates)
    if dry_run:
        return found, ()
    if len(found) > cap:
        raise UsageError(
            f"{len(found)} environments would be removed, more than {cap} at once",
            hint="look with `envctl gc --dry-run`; then allow it with `--max`",
        )
    removed = tuple(_remove(each, project, progress, substrates) for each in found)
    lock.sweep(lock.environments_directory())
    return found, removed


def _remove(item: Garbage, project: Path | None, progress: Callable[[str], None], substrates: Substrates) -> Down:
    try:
        return tear_down(
            item.env_id, directory=item.directory, project=project, substrate=item.substrate, only_if_over=True, progress=progress,
            substrates=substrates,
        )
    except NoEnvironmentError:
        return Down(item.env_id, ("it was already gone",))
