"""The planted defects of the bug bench: what each breaks, what must be named as its cause, and which scenarios may catch it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import yaml

from bench.project import HERE
from envctl.model.scenario import FaultSpec, Scenario
from envctl.spec import load_project, load_scenario, load_topology, scenario_files, stated

SUITE = "nightly"
SHARED = "common"
HOME = HERE / "tests" / "bugbench" / "defects"
SERVICE = re.compile(r"^(?:---|\+\+\+) [ab]/stacks/[^/]+/services/([^/\s]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to name a defect rightly: a finding of this check that names all of these."""

    check: str
    about: tuple[str, ...] = ()

    def named_by(self, finding: Mapping[str, Any]) -> bool:
        """Whether a failed finding (`check`, `text`) says so."""
        return finding["check"] == self.check and all(map(_word(finding["text"]), self.about))


def _word(text: str) -> Any:
    """Whether a name stands in the text as itself or as a node or partition of it: `orders` is not in `orders.placed`."""
    return lambda name: re.search(rf"(?<![\w-])(?<!\w\.){re.escape(name)}(?!\w)(?!-[a-z])(?!\.\w)", text) is not None


@dataclass(frozen=True, slots=True)
class Defect:
    """A patch to the shop, and what was expected of it before it was first run."""

    name: str
    title: str
    group: str  # its `class`
    patch: Path
    causes: tuple[Cause, ...]
    first: tuple[str, ...] = ()  # scenarios to try first; the others are tried all the same
    uncaught: str = ""  # why nothing catches it, where that is known

    @property
    def digest(self) -> str:
        """Changes with the patch: what was measured with another one doesn't count."""
        return hashlib.sha256(self.patch.read_bytes()).hexdigest()[:12]

    @property
    def services(self) -> frozenset[str]:
        """The directories of services that the patch touches."""
        return frozenset(SERVICE.findall(self.patch.read_text(encoding="utf-8")))


def load_defects(home: Path = HOME) -> tuple[Defect, ...]:
    """All defects below `home`, by name."""
    return tuple(_defect(file) for file in sorted(home.glob("*/defect.yaml")))


def _defect(file: Path) -> Defect:
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    causes = tuple(Cause(each["check"], tuple(map(str, each.get("about", ())))) for each in raw.get("cause", ()))
    return Defect(raw["name"], raw["title"], raw["class"], file.with_name("defect.patch"), causes,
                  tuple(raw.get("scenarios", ())), raw.get("uncaught", ""))


def sampled(defects: Sequence[Defect], count: int) -> tuple[Defect, ...]:
    """The first `count`, one of each class before the second of any, those first that say what to try first; none that nothing is known to catch."""
    groups = defaultdict(list)
    for each in sorted(defects, key=lambda defect: not defect.first):
        if not each.uncaught:
            groups[each.group].append(each)
    rounds = chain.from_iterable(zip_longest(*groups.values()))
    return tuple(each for each in rounds if each is not None)[:count]


def shop_scenarios(root: Path = HERE) -> tuple[Scenario, ...]:
    """Every scenario of the project's stack that nightly runs pass: what clean runs must pass and what must catch."""
    project = load_project(root)
    topology = load_topology(project.topology_file)
    files = [file for file in scenario_files(project) if stated(file, "stack") in ("", topology.name)]
    return tuple(each for file in files if SUITE in (each := load_scenario(file, topology, seeds=project.seeds)).suites)


def ordered(defect: Defect, scenarios: Sequence[Scenario]) -> tuple[str, ...]:
    """All scenarios by name, those first that hurt most, or at least take, what the patch touches; then shorter ones."""
    everywhere = SHARED in defect.services or not defect.services  # in the services' common code, or in the topology

    def rank(scenario: Scenario) -> tuple[int, int, int, int, float, str]:
        hinted = defect.first.index(scenario.name) if scenario.name in defect.first else len(defect.first)
        taken = len(scenario.takes) if everywhere else len(defect.services & set(scenario.takes))
        hurt = 0 if everywhere else sum(_hits(fault, defect.services) for fault in scenario.faults)
        return hinted, -taken, -hurt, -len(scenario.faults), scenario.traffic.duration_s or 0.0, scenario.name

    return tuple(each.name for each in sorted(scenarios, key=rank))


def _hits(fault: FaultSpec, services: frozenset[str]) -> bool:
    return any(str(value) in services for value in fault.params.values())
