"""What a plan needs of the machine, looked at before anything is started."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from envctl import plugins
from envctl.errors import CapabilityError
from envctl.model.plan import Plan
from envctl.toolchain.lookup import find
from envctl.toolchain.machine import machine_problems


def require(plan: Plan) -> None:
    """Raises CapabilityError with everything that this machine lacks for the plan, and the one step that gets it."""
    lacks = machine_problems() if plan.substrate == "embedded" else ()
    if lacks:
        raise CapabilityError("\n".join(lack.what for lack in lacks), hint="; ".join(lack.step for lack in lacks))
    missing = dict(_missing(plan))
    if missing:
        wishes = " ".join(shlex.quote(wish) for wish in missing)
        raise CapabilityError("\n".join(missing.values()), hint=f"run `envctl setup {wishes}`, or `envctl setup` for all tools")


def versions_of(plan: Plan) -> dict[str, str]:
    """Component → version of the program that its nodes run here.  Raises CapabilityError without one."""
    return {name: find(*next(iter(tools.items()))).version for name, tools in _tools(plan) if tools}


def _missing(plan: Plan) -> Iterator[tuple[str, str]]:
    """(what `envctl setup` takes, what is said about it) of every tool that is not here."""
    wanted = [("pulumi", ""), *(wish for _, tools in _tools(plan) for wish in tools.items())]
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
