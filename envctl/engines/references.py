"""References from one component's environment to another's endpoints: `${component.name}`; `$${` is a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from envctl import plugins
from envctl.engines.base import Engine
from envctl.errors import Problem, SpecError
from envctl.model.topology import AnyComponent, Topology

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")


def engine_of(component: AnyComponent) -> Engine:
    """The engine for a component, by its kind.  Raises UsageError for a kind without engine."""
    engine: Engine = plugins.load("envctl.engines", component.kind)()
    return engine


def endpoints(topology: Topology) -> dict[str, Mapping[str, str]]:
    """What may be referred to: component → name → value.  Depends on the topology only."""
    return {name: engine_of(component).endpoints(component) for name, component in topology.components.items()}


def resolve(text: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """The text with every reference replaced.  Raises KeyError for one that does not exist (see `problems`)."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        component, _, name = match[1].partition(".")
        return known[component][name]

    return _REFERENCE.sub(value, text)


def referred(component: AnyComponent) -> frozenset[str]:
    """Names of the components that a component's environment refers to (whether they exist or not)."""
    return frozenset(match[1].partition(".")[0] for text in component.env.values() for match in _references(text))


def check(topology: Topology, selected: Collection[str], stubbed: Collection[str]) -> None:
    """Raises SpecError with every reference of a selected component that leads nowhere."""
    known = endpoints(topology)
    present = {*selected, *stubbed}
    found = [
        problem
        for name in selected
        for problem in _problems(topology, topology.components[name], known, present)
    ]
    if found:
        raise SpecError(found)


def _references(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _REFERENCE.finditer(text) if match[1] is not None)


def _problems(
    topology: Topology, component: AnyComponent, known: Mapping[str, Mapping[str, str]], present: Collection[str]
) -> Iterator[Problem]:
    for key, text in component.env.items():
        for match in _references(text):
            fault = _fault(match[1], known, present)
            if fault:
                message, hint = fault
                yield Problem(topology.file, component.line, f"components.{component.name}.env.{key}", message, hint)


def _fault(
    reference: str, known: Mapping[str, Mapping[str, str]], present: Collection[str]
) -> tuple[str, str] | None:
    """What is wrong with a reference, and the hint; None when it is right."""
    component, _, name = reference.partition(".")
    written = f"${{{reference}}}"
    if component not in known:
        return f"{written}: there is no component {component!r}", plugins.nearest(component, tuple(known))
    if name not in known[component]:
        hint = plugins.nearest(name, tuple(known[component]))
        return f"{written}: {component} has no endpoint {name!r}", hint
    if component not in present:
        return (
            f"{written}: {component} is left out of this environment and not stubbed",
            f"name {component} under `needs` or `calls` of the component, or stub it",
        )
    return None
