"""What a plan needs of the machine, looked at before anything is started."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from envctl import plugins
from envctl.errors import CapabilityError
from envctl.model.environment import Packaging
from envctl.model.plan import Plan
from envctl.stack_provider.ground import Substrates, installed
from envctl.toolchain.lookup import find


def require(plan: Plan, substrates: Substrates = installed) -> None:
    """Raises CapabilityError with everything that this machine lacks for the plan, and the one step that gets it."""
    require_ground(plan.substrate, substrates=substrates)
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


def _tools(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Component → the tools that its engine runs (see `envctl.engines.base.RunsTools`)."""
    for name in plan.components:
        component = plan.topology.components[name]
        engine = plugins.load("envctl.engines", component.kind)()
        yield name, engine.tools(component) if hasattr(engine, "tools") else {}
