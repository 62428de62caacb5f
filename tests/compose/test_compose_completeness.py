"""Nothing of a Compose file vanishes: what is not carried over is told, wherever it stands; and nothing makes the import crash."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from envctl.compose import Imported, compose_files, import_compose
from envctl.compose.reading import read
from envctl.compose.report import Report
from envctl.compose.values import Cursor
from envctl.errors import SpecError
from envctl.spec import load_topology

HERE = Path(__file__).parent / "cases"
PLAIN = [case for case in sorted(HERE.iterdir()) if case.name not in ("include", "override")]  # files whose fields stay where they are
KEY, TEXT = "zz_probe", "zz-value"


DOCUMENTS = {case.name: yaml.safe_load(compose_files(case)[0].read_text()) for case in PLAIN}


def document_of(case: str) -> Any:
    """One that may be changed.  What anchors make one is still one: written again, it has anchors again."""
    return copy.deepcopy(DOCUMENTS[case])


def mappings(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where mappings stand."""
    if isinstance(value, dict):
        yield at
        for key, below in value.items():
            yield from mappings(below, (*at, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from mappings(below, (*at, index))


def covers(field: str, at: tuple[str | int, ...]) -> bool:
    """Whether what is told at a field is about a place."""
    names: list[str] = []
    for part in at:
        names.append(f"{names.pop()}[{part}]" if isinstance(part, int) else str(part))
    path = ".".join(names)
    head, brace, group = field.partition("{")
    if brace:
        return any(path == f"{head}{name}" or path.startswith((f"{head}{name}.", f"{head}{name}[")) for name in group.rstrip("}").split(", "))
    return path == field or path.startswith((f"{field}.", f"{field}["))


def put(document: Any, at: tuple[str | int, ...], value: Any) -> None:
    for part in at[:-1]:
        document = document[part]
    document[at[-1]] = value


def imported(case: str, document: Any) -> Imported:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / case
        shutil.copytree(HERE / case, root)
        file = compose_files(root)[0]
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        environment = {"API_TOKEN": "t", "MOTD": "hello", "COMMIT": "abc"}
        return import_compose([file], root, environment, profiles=["mail"], name="x")


PLACES = [(case, at) for case, document in DOCUMENTS.items() for at in mappings(document)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([TEXT, [TEXT], {"deep": TEXT}, True, 7]))
def test_a_field_that_is_added_anywhere_is_carried_over_or_told_or_refused(place: tuple[str, tuple[str | int, ...]], value: Any) -> None:
    case, at = place
    document = document_of(case)
    put(document, (*at, KEY), value)
    try:
        found = imported(case, document)
    except SpecError as error:
        assert all(problem.line for problem in error.problems)  # noqa: PT017 - a refusal is an answer too
        return
    extension = any(str(part).startswith("x-") for part in at)
    told = any(covers(left.field, (*at, KEY)) for left in found.left)
    assert extension or told or KEY in found.topology or KEY.replace("_", "-") in found.topology


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_every_value_has_been_read_or_told(case: Path) -> None:
    read_or_told(case)


def read_or_told(case: Path) -> None:
    from envctl.compose import convert

    seen: list[Cursor] = []
    whole = Report.finish

    def finish(self: Report, model: Cursor) -> Any:
        seen.append(model)
        return whole(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "finish", finish)
        imported(case.name, document_of(case.name))
    assert convert.import_compose is import_compose
    for key, value in seen[0].entries().items():
        assert key.startswith("x-") or all(scalar.read for scalar in value.value.scalars()), key


trees = st.recursive(
    st.one_of(st.none(), st.text(alphabet="ab ", max_size=3), st.integers(0, 9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(alphabet="abcdeploymt", min_size=1, max_size=6), inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["services", "volumes", "other", "deploy"]), trees, min_size=1, max_size=3), st.randoms())
def test_what_nobody_has_read_is_told_and_what_was_read_is_not(tree: dict[str, Any], chance: Any) -> None:
    model = Cursor(read(Path("compose.yaml"), Path(), yaml.safe_dump(tree)))
    leaves = list(model.value.scalars())
    read_ones = [leaf for leaf in leaves if chance.random() < 0.5]
    for leaf in read_ones:
        leaf.read = True
    told = Report().finish(model)
    assert all(leaf.read for leaf in leaves)
    assert bool(told) == (len(read_ones) < len(leaves))


FIELDS = [
    "image", "build", "command", "entrypoint", "environment", "env_file", "depends_on", "ports", "expose", "volumes", "healthcheck", "deploy",
    "restart", "networks", "secrets", "configs", "profiles", "extends", "user", "working_dir", "links", "tmpfs", "scale", "stop_grace_period",
    "container_name", "hostname", "labels", "cpus", "mem_limit", "privileged", "x-y",
]
WORDS = st.sampled_from([
    "", "postgres:15", "redis", "apache/kafka:3.9.0", "zookeeper", "nginx:1", "a", "b", "8080:80", "80", "./a:/b", "v:/data", "/x", "A=1", "B", "$A",
    "${A:-b}", "on", "1.5", "64m", "NONE", "CMD", "curl -f http://localhost:80/x", "service_healthy", "compose.yaml", "10s", "'", "KAFKA_LISTENERS=SASL",
])
VALUES = st.recursive(
    st.one_of(WORDS, st.none(), st.booleans(), st.integers(-1, 99999)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.sampled_from([
        "context", "condition", "test", "source", "target", "type", "replicas", "resources", "limits", "cpus", "memory", "file", "path", "service", "args",
    ])), inner, max_size=3)),
    max_leaves=6,
)
SERVICE = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "Web_1", "telemetry"]), st.one_of(SERVICE, SERVICE.map(lambda one: {"image": "nginx:1", **one})), max_size=3),
       st.dictionaries(st.sampled_from(["volumes", "networks", "secrets", "configs", "include", "name"]), VALUES, max_size=2))
def test_any_file_is_imported_into_a_topology_that_loads_or_refused_with_a_line(services: dict[str, Any], more: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "compose.yaml").write_text(yaml.safe_dump({"services": services, **more}, sort_keys=False))
        try:
            found = import_compose([root / "compose.yaml"], root, {"A": "x"}, name="x")
        except SpecError as error:
            assert error.problems  # noqa: PT017
            return
        load_topology(root / "stacks/x/topology.yaml", files=False, text=found.topology)


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values stand, mappings and lists too."""
    if at:
        yield at
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(below, (*at, key))


VALUES_OF_CASES = [(case, at) for case, document in DOCUMENTS.items() for at in leaves(document)]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(VALUES_OF_CASES), VALUES)
def test_a_value_that_is_changed_anywhere_is_imported_into_a_topology_that_loads_or_refused(place: tuple[str, tuple[str | int, ...]], value: Any) -> None:
    case, at = place
    document = document_of(case)
    put(document, at, value)
    try:
        found = imported(case, document)
    except SpecError as error:
        assert error.problems  # noqa: PT017
        return
    load_topology(Path("/nowhere/topology.yaml"), files=False, text=found.topology)


TAKEN_AS_IT_IS = {  # the engine's own readiness and reach, a profile beside the one that is on, what Compose ignores itself
    ("airflow", "services", "postgres", "healthcheck", "test"), ("airflow", "services", "redis", "healthcheck", "test"),
    ("airflow", "services", "redis", "expose"), ("replicas", "services", "cache", "healthcheck", "test"),
    ("profiles", "services", "mailer", "profiles"), ("backend-platform", "name"),  # the test names the stack itself
}
SCALARS = [
    (case, at) for case, at in VALUES_OF_CASES
    if not str(at[0]).startswith("x-") and at != ("version",) and not any((case, *at[:length]) in TAKEN_AS_IT_IS for length in range(len(at) + 1))
]


def result(found: Imported) -> tuple[Any, ...]:
    return found.topology, dict(found.files), [(left.field, left.reason) for left in found.left]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SCALARS))
def test_another_value_makes_another_topology_or_is_told_or_refused(place: tuple[str, tuple[str | int, ...]]) -> None:
    case, at = place
    before = imported(case, document_of(case))
    if any(covers(left.field, at) for left in before.left):
        return
    for other in ("zz9", "./zz9", "12345", "zz=9", True):
        document = document_of(case)
        put(document, at, other)
        try:
            if result(imported(case, document)) != result(before):
                return
        except SpecError:
            return
    pytest.fail(f"{case}: nobody notices {at}")

