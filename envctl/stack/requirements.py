"""What a plan needs of the machine, looked at before anything is started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from envctl import plugins
from envctl.errors import CapabilityError
from envctl.model.environment import Packaging
from envctl.model.plan import Plan
from envctl.model.topology import Image
from envctl.spec.contexts import context_of
from envctl.spec.dockerfiles import buildkit_needs
from envctl.stack_provider.ground import Substrates, installed
from envctl.toolchain.lookup import find


def require(plan: Plan, substrates: Substrates = installed) -> None:
    """Raises CapabilityError with everything that this machine lacks for the plan, and the one step that gets it."""
    require_ground(plan.substrate, substrates=substrates)
    if problems := _unbuildable(plan):
        from envctl.substrates.docker.builder import STEP

        raise CapabilityError("\n".join(problems), hint=STEP)
    missing = dict(_missing(plan))
    if missing:
        wishes = " ".join(shlex.quote(wish) for wish in missing)
        raise CapabilityError("\n".join(missing.values()), hint=f"run `envctl setup {wishes}`, or `envctl setup` for all tools")


def require_ground(substrate: str, tools: Sequence[str] = (), *, substrates: Substrates = installed) -> None:
    """Raises CapabilityError where no environment can be made on a substrate here, or none with faults that use these tools."""
    if lacks := substrates(substrate).lacks(tools):
        raise CapabilityError("\n".join(what for what, _ in lacks), hint="; ".join(dict.fromkeys(step for _, step in lacks)))


def versions_of(plan: Plan) -> dict[str, str]:
    """Component → version of the program that its nodes run here, or the image.  Raises CapabilityError without one."""
    if _packaging(plan) == "images":
        named = {name: plan.topology.components[name].image for name in plan.components}
        return {name: image if isinstance(image, str) else image.reference for name, image in named.items() if image}
    return {name: find(*next(iter(tools.items()))).version for name, tools in _tools(plan) if tools}


def _packaging(plan: Plan) -> Packaging:
    return installed(plan.substrate).packaging


def _missing(plan: Plan) -> Iterator[tuple[str, str]]:
    """(what `envctl setup` takes, what is said about it) of every tool that is not here."""
    programs = _tools(plan) if _packaging(plan) == "files" else ()
    wanted = [("pulumi", ""), *(wish for _, tools in programs for wish in tools.items())]
    for tool, version in dict.fromkeys(wanted):
        try:
            find(tool, version)
        except CapabilityError as error:
            yield f"{tool}@{version}" if version else tool, error.message


def _unbuildable(plan: Plan) -> tuple[str, ...]:
    """What in the Dockerfiles of a plan no builder of this machine builds, each with its place."""
    from envctl.substrates.docker.builder import buildkit

    if _packaging(plan) != "images":
        return ()
    images = (plan.topology.components[name].image for name in plan.components)
    found = dict.fromkeys(problem for image in images if isinstance(image, Image) and image.context for problem in _for_buildkit(plan, image))
    return () if not found or buildkit() else tuple(found)


def _for_buildkit(plan: Plan, image: Image) -> Iterator[str]:
    context = context_of(plan.topology.directory, image)
    file = Path(os.path.normpath(context.directory / context.dockerfile))
    if file.is_file():
        for line, what in buildkit_needs(file.read_text(encoding="utf-8-sig", errors="replace"), image.args):
            yield f"{file}:{line}: {what} is for BuildKit, and no docker command here builds with that"


def _tools(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Component → the tools that its engine runs (see `envctl.engines.base.RunsTools`)."""
    for name in plan.components:
        component = plan.topology.components[name]
        engine = plugins.load("envctl.engines", component.kind)()
        yield name, engine.tools(component) if hasattr(engine, "tools") else {}
