"""From a topology and a subset of it to everything that has to be started, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envctl.engines import references
from envctl.engines.base import Realisation, Site
from envctl.engines.program import stub_realisation
from envctl.errors import Problem, SpecError
from envctl.model.topology import Topology


def realise_all(topology: Topology, selected: Sequence[str], stubbed: Sequence[str], site: Site) -> list[Realisation]:
    """One realisation for each selected or stubbed component; what a component needs stands before it.

    Prepares whatever the nodes start from.  Raises SpecError, before anything is prepared, for references and needs that
    lead nowhere; ResourceError, CapabilityError where preparing fails.
    """
    references.check(topology, selected, stubbed)
    made = []
    for name in in_order(topology, selected):
        component = topology.components[name]
        made.append(references.engine_of(component).realise(component, site))
    return [*(stub_realisation(topology.components[name], site) for name in stubbed), *made]


def in_order(topology: Topology, names: Sequence[str]) -> list[str]:
    """The components, each after those it needs, otherwise as given.  Raises SpecError for a circle."""
    done: dict[str, None] = {}
    wanted = set(names)

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            raise SpecError([_circle(topology, (*path[path.index(name) :], name))])
        if name not in done:
            for need in topology.components[name].needs:
                if need in wanted:
                    yield from visit(need, (*path, name))
            done[name] = None
            yield name

    return [found for name in names for found in visit(name, ())]


def _circle(topology: Topology, path: tuple[str, ...]) -> Problem:
    component = topology.components[path[0]]
    return Problem(topology.file, component.line, f"components.{component.name}.needs", f"a circle: {' → '.join(path)}")
