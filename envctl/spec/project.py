"""`envctl.yaml` → Project, with defaults where there is none; and finding scenarios and seeds by the names people use."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from envctl.errors import Problem, SpecError, UsageError
from envctl.model.project import Gate, Project, Suite, Waiver
from envctl.spec import FILE, stated
from envctl.spec.document import Document, did_you_mean
from envctl.spec.units import duration_s


def load_project(root: Path) -> Project:
    """The project at `root`.  Raises SpecError for a wrong `envctl.yaml`, or when it is unclear which stack is meant."""
    root = root.resolve()
    file = root / FILE
    if not file.exists():
        return Project(root, _only_stack(root))
    from envctl.spec.structure import open_document

    document = open_document(file, "project", units=("suites",))
    data: dict[str, Any] = document.data
    stack = root / data["stack"] if "stack" in data else None
    if stack and not (stack / "topology.yaml").is_file():
        known = [str(each.relative_to(root)) for each in _stacks(root)]
        document.problem(("stack",), f"there is no {data['stack']}/topology.yaml", did_you_mean(data["stack"], known))
    waivers = _waivers(document, [file.stem for file in root.glob("scenarios/*.yaml")])
    document.raise_problems()
    gate = data.get("gate", {})
    return Project(
        root,
        stack or _only_stack(root),
        base=data.get("base", "origin/main"),
        substrate=data.get("substrate", "embedded"),
        ttl_s=duration_s(data["ttl"]) if "ttl" in data else 7200.0,
        suites={name: _suite(raw or {}) for name, raw in data.get("suites", {}).items()},
        gate=Gate(gate.get("slo", "all"), gate.get("stubs_unverified", "warn"), waivers),
    )


def _waivers(document: Document, scenarios: list[str]) -> tuple[Waiver, ...]:
    """The waivers that hold today; one that has expired is a problem, so that nobody forgets what it hides."""
    from envctl.spec.names import known

    found = []
    for index, raw in enumerate(document.data.get("gate", {}).get("waivers", ())):
        at = ("gate", "waivers", index, "expires")
        known(document, ("gate", "waivers", index, "scenario"), "scenario", raw["scenario"], scenarios)
        try:
            waiver = Waiver(raw["scenario"], raw["finding"], raw["owner"], raw["reason"], date.fromisoformat(raw["expires"]))
        except ValueError:
            document.problem(at, f"found {raw['expires']!r}", "allowed: a day such as 2027-01-31")
            continue
        if waiver.expires < datetime.now(UTC).date():
            document.problem(at, f"the waiver of {waiver.finding} by {waiver.owner} has expired", "mend what it hides, or renew it")
        found.append(waiver)
    return tuple(found)


def _suite(raw: dict[str, Any]) -> Suite:
    scenarios = raw.get("scenarios", ())
    every = scenarios == "all"
    return Suite(raw.get("inconclusive", "retry"), () if every else tuple(scenarios), every, raw.get("repeat", 1))


def _stacks(root: Path) -> list[Path]:
    return sorted(file.parent for file in root.glob("stacks/*/topology.yaml"))


def _only_stack(root: Path) -> Path:
    stacks = _stacks(root)
    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        raise SpecError([Problem(root, 0, "", "there is no envctl.yaml and no stacks/*/topology.yaml", "`envctl init` writes an example")])
    names = ", ".join(str(each.relative_to(root)) for each in stacks)
    message = f"there are several stacks ({names}) and no {FILE} that says which one is meant"
    raise SpecError([Problem(root, 0, "", message, f"write `stack: {stacks[0].relative_to(root)}` into {FILE}")])


def scenario_file(project: Project, name: str) -> Path:
    """The scenario that a name or a path means.  Raises UsageError with the known names."""
    given = Path(name)
    if given.suffix in (".yaml", ".yml") and given.is_file():
        return given.resolve()
    file = project.scenarios / f"{name.removesuffix('.yaml')}.yaml"
    if file.is_file():
        return file
    known = [each.stem for each in project.scenarios.glob("*.yaml")]
    raise UsageError(f"there is no scenario {name!r} in {project.scenarios}", hint=did_you_mean(name, known))


def scenario_files(project: Project) -> tuple[Path, ...]:
    """The scenario files of the project's stack, by name; those that name another stack are left out."""
    return tuple(file for file in sorted(project.scenarios.glob("*.yaml")) if stated(file, "stack") in ("", project.stack.name))


def seed_file(project: Project, name: str) -> Path:
    """The seed that a name or a path means.  Raises UsageError with the known names."""
    given = Path(name)
    if given.suffix in (".yaml", ".yml") and given.is_file():
        return given.resolve()
    file = project.seeds / name / "seed.yaml"
    if file.is_file():
        return file
    known = [each.parent.name for each in project.seeds.glob("*/seed.yaml")]
    raise UsageError(f"there is no seed {name!r} in {project.seeds}", hint=did_you_mean(name, known))
