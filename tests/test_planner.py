"""The planner's rules, on made-up topologies and on real repositories."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import UsageError
from envctl.model.plan import Ask, Plan
from envctl.model.project import Project
from envctl.model.scenario import Detect, FaultSpec, Measure, Scenario
from envctl.model.topology import Image, Kafka, Postgres, Service, Source, Subscription, Topic, Topology
from envctl.planner.changes import Changes, changed_files, changes
from envctl.planner.identity import environment_id
from envctl.planner.project import plan_project
from envctl.planner.reasons import requirements
from envctl.planner.subset import Checkout, plan
from envctl.spec import load_project, load_scenario, load_topology
from envctl.spec.conditions import parse_condition

ROOT = Path("/repository")
SYSTEM = Path(__file__).parent / "spec" / "system"
NAMES = [f"s{index}" for index in range(7)]
TOPICS = ["t0", "t1", "t2"]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Up to seven services that call each other at will and need only earlier ones, a Kafka and a Postgres."""
    count = draw(st.integers(1, len(NAMES)))
    bus = Kafka(name="bus", version="4.1", topics={topic: Topic(topic) for topic in TOPICS})
    base = Postgres(name="db", version="15", databases=("main",), migrations="migrations/{database}")
    services = []
    for index in range(count):
        needs = draw(st.lists(st.sampled_from(["db", *NAMES[:index]]), unique=True, max_size=2))
        calls = draw(st.lists(st.sampled_from(NAMES[:count]), unique=True, max_size=2))
        form = draw(st.sampled_from([
            {"source": Source("tree", f"services/{NAMES[index]}"), "command": ("run",)},
            {"image": Image(context=f"services/{NAMES[index]}")},
            {"image": Image("shop/service", files={"/app": f"services/{NAMES[index]}"})},
        ]))
        services.append(Service(
            name=NAMES[index], **form, needs=tuple(needs),  # type: ignore[arg-type]
            calls=dict.fromkeys(calls, "http"), publishes=tuple(draw(st.lists(st.sampled_from(TOPICS), unique=True, max_size=2))),
            consumes=tuple(Subscription(topic, "g") for topic in draw(st.lists(st.sampled_from(TOPICS), unique=True, max_size=1))),
            ports={"http": 80}, stub="examples.yaml",
        ))
    return Topology("made-up", ROOT / "stacks/x/topology.yaml", ("a",), {each.name: each for each in (base, bus, *services)})


def files(*names: str) -> Changes:
    return Changes(tuple(PurePosixPath("stacks/x") / name for name in names), base="main")


def planned(
    topology: Topology, changed: Changes, scenarios: Sequence[Scenario] = (), digests: Mapping[str, str] | None = None, **asked: object
) -> Plan:
    checkout = Checkout("e", changed, source_digests=digests or {})
    return plan(Project(ROOT, ROOT / "stacks/x"), topology, checkout, Ask(**asked), scenarios)  # type: ignore[arg-type]


changed_services = st.lists(st.sampled_from(NAMES), unique=True)


def of(names: list[str]) -> Changes:
    return files(*(f"services/{name}/main.py" for name in names))


@given(topologies(), changed_services, st.data())
def test_everything_a_selected_component_cannot_do_without_is_in_or_stubbed(topology: Topology, names: list[str], data: st.DataObject) -> None:
    services = [name for name in topology.components if name in NAMES]
    stubs = data.draw(st.lists(st.sampled_from(services), unique=True))
    made = planned(topology, of(names), stubs=stubs)
    for name in made.components:
        for required, _ in requirements(topology, topology.components[name]):
            assert required in made.components or required in made.stubbed
    parts = [*made.components, *made.stubbed, *made.left_out]
    assert sorted(parts) == sorted(topology.components)
    assert set(made.stubbed) <= set(stubs)


@given(topologies(), changed_services, changed_services, st.booleans())
def test_a_further_change_never_shrinks_the_subset(topology: Topology, names: list[str], more: list[str], stubbed: bool) -> None:
    stubs = [name for name in topology.components if name in NAMES][:1] if stubbed else []
    before = planned(topology, of(names), stubs=stubs)
    after = planned(topology, of([*names, *more]), stubs=stubs)
    assert set(before.components) <= set(after.components)


@given(topologies(), st.permutations(NAMES), st.integers(0, 7))
def test_the_order_of_the_changes_does_not_matter(topology: Topology, shuffled: list[str], count: int) -> None:
    one, other = planned(topology, of(shuffled[:count])), planned(topology, of(sorted(shuffled[:count])))
    assert one.digest == other.digest
    assert one.components == other.components
    assert [(each.component, each.why, set(each.because)) for each in one.selected] == [
        (each.component, each.why, set(each.because)) for each in other.selected
    ]


@given(topologies(), changed_services)
def test_every_component_has_a_reason_and_the_plan_is_the_same_each_time(topology: Topology, names: list[str]) -> None:
    made = planned(topology, of(names))
    assert made == planned(topology, of(names))
    assert all(each.because for each in made.selected)
    assert {each.component for each in made.selected if each.why == "changed"} == set(names) & set(topology.components)


@given(topologies(), changed_services)
def test_consumers_of_a_changed_publisher_are_in(topology: Topology, names: list[str]) -> None:
    made = planned(topology, of(names))
    for publisher in set(names) & set(topology.components):
        for other in topology.components.values():
            shared = {each.topic for each in getattr(other, "consumes", ())} & set(getattr(topology.components[publisher], "publishes", ()))
            assert not shared or other.name in made.components


@given(topologies())
def test_the_full_topology_has_everything(topology: Topology) -> None:
    assert planned(topology, Changes(), full=True).components == tuple(topology.components)
    assert planned(topology, Changes(unknown="no such branch")).components == tuple(topology.components)


@given(topologies(), changed_services)
def test_the_digest_ignores_reasons_and_lines_and_sees_sources_and_configuration(topology: Topology, names: list[str]) -> None:
    made = planned(topology, of(names), only=["db"])
    moved = {name: replace(each, line=each.line + 7) for name, each in topology.components.items()}
    assert planned(replace(topology, components=moved), of(names), only=["db"]).digest == made.digest
    assert planned(topology, of(names), only=["db"], digests={"db": "other"}).digest != made.digest
    settings = {**topology.components, "db": replace(topology.components["db"], settings={"fsync": "off"})}  # type: ignore[call-arg]
    assert planned(replace(topology, components=settings), of(names), only=["db"]).digest != made.digest


def test_what_a_left_out_component_is_like_does_not_touch_the_digest() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    made = planned(topology, Changes(), only=["pricing"])
    other = {**topology.components, "worker": replace(topology.components["worker"], replicas=9)}  # type: ignore[call-arg]
    assert planned(replace(topology, components=other), Changes(), only=["pricing"], digests={"worker": "x"}).digest == made.digest


def test_a_configuration_change_selects_only_the_component_it_touches() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    before = {**topology.components, "worker": replace(topology.components["worker"], replicas=1)}  # type: ignore[call-arg]
    made = planned(topology, replace(files("topology.yaml"), topology=replace(topology, components=before)))
    assert [(each.component, each.because) for each in made.selected if each.why == "changed"] == [("worker", ("topology.yaml: replicas",))]
    assert made.components == ("db", "bus", "worker")


def test_a_changed_engine_brings_those_who_need_it_and_a_changed_topic_only_its_users() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    older = {**topology.components, "db": replace(topology.components["db"], version="14")}  # type: ignore[call-arg]
    made = planned(topology, replace(files("topology.yaml"), topology=replace(topology, components=older)))
    assert {"web", "worker"} <= set(made.components)
    topics = {**topology.components, "bus": replace(topology.components["bus"], topics={"jobs": Topic("jobs", 9)})}  # type: ignore[call-arg]
    made = planned(topology, replace(files("topology.yaml"), topology=replace(topology, components=topics)))
    assert next(each for each in made.selected if each.component == "worker").because[0] == "bus (topic jobs changed)"


def test_a_migration_selects_its_database_and_who_uses_it() -> None:
    topology = replace(load_topology(SYSTEM / "stacks/tiny/topology.yaml"), file=ROOT / "stacks/x/topology.yaml")
    made = planned(topology, files("migrations/main/002.sql"))
    assert made.selected[0].why == "changed"
    assert next(each for each in made.selected if each.component == "web").because == ("db (migrates main)",)
    assert "worker" in made.left_out


def test_what_docker_does_not_see_of_a_context_is_no_change_and_its_dockerfile_anywhere_is_one(tmp_path: Path) -> None:
    (tmp_path / "stacks/x/app").mkdir(parents=True)
    (tmp_path / "stacks/x/app/.dockerignore").write_text("*.md\n")
    app = Service(name="app", image=Image(context="app", dockerfile="../Containerfile"))
    other = Service(name="other", image=Image("nginx:1.27"))
    topology = Topology("x", tmp_path / "stacks/x/topology.yaml", ("a",), {"app": app, "other": other})

    def changed(name: str) -> Plan:
        return plan(Project(tmp_path, tmp_path / "stacks/x"), topology, Checkout("e", files(name)), Ask(), [])

    assert changed("app/gone/main.py").components == changed("Containerfile").components == ("app",)
    assert (changed("app/notes.md").components, changed("app/notes.md").notes) == ((), ())
    renamed = replace(other, image=Image("nginx:1.26"))
    base = replace(topology, components={"app": app, "other": renamed})
    made = plan(Project(tmp_path, tmp_path / "stacks/x"), topology, Checkout("e", replace(files("topology.yaml"), topology=base)), Ask(), [])
    assert [(each.component, each.because) for each in made.selected] == [("other", ("topology.yaml: image.reference",))]


def test_a_file_nobody_claims_is_noted() -> None:
    topology = replace(load_topology(SYSTEM / "stacks/tiny/topology.yaml"), file=ROOT / "stacks/x/topology.yaml")
    made = planned(topology, files("lib/shared.py"))
    assert not made.selected
    assert "stacks/x/lib/shared.py changed, but no component claims it" in made.notes[0]


def test_a_changed_service_runs_itself_although_a_stub_was_asked_for() -> None:
    topology = replace(load_topology(SYSTEM / "stacks/tiny/topology.yaml"), file=ROOT / "stacks/x/topology.yaml")
    assert planned(topology, files("services/web/main.py"), stubs=["pricing"]).stubbed == ()  # both share one source
    assert planned(topology, Changes(), only=["web"], stubs=["pricing"]).stubbed == ("pricing",)


def test_a_scenario_brings_what_it_names() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    scenario = load_scenario(SYSTEM / "scenarios/rush.yaml", topology)
    made = planned(topology, Changes(), scenarios=[scenario])
    assert made.components == ("db", "bus", "web", "worker")
    assert made.stubbed == ("pricing",)
    because = {each.component: each.because for each in made.selected}
    assert because["db"] == ("rush (observe rows)",)
    assert "rush (fault node-kill)" in because["worker"]
    assert "rush (lag(workers))" in because["worker"]
    assert planned(topology, Changes(), scenarios=[scenario], full=True).stubbed == ()


def test_what_conditions_and_measures_speak_of_takes_part() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    scenario = load_scenario(SYSTEM / "scenarios/rush.yaml", topology)
    fault = replace(scenario.faults[0], during=(parse_condition("memory(worker-1) < 90 %"),), detect=Detect(None, (parse_condition("connections(db) > 90 %"),)))
    speaks = replace(scenario, faults=(fault,), stop=(parse_condition("cpu(web) > 99 %"),), during=(parse_condition("depth(jobs) < 5"),),
                     measures={"rows": Measure("rows", sql="select 1", component="db", database="main")})
    because = {each.component: each.because for each in planned(topology, Changes(), scenarios=[speaks]).selected}
    for component, reason in (("worker", "memory(worker-1)"), ("db", "connections(db)"), ("web", "cpu(web)"), ("bus", "depth(jobs)"), ("db", "measure rows")):
        assert f"rush ({reason})" in because[component]


def test_a_stub_that_a_fault_has_fail_stays_a_stub() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    scenario = load_scenario(SYSTEM / "scenarios/rush.yaml", topology)
    fault = FaultSpec(id="failing", fault="failing-dependency", at_s=1.0, after=(), for_s=2.0, params={"stub": "pricing", "how": "errors"})
    assert planned(topology, Changes(), scenarios=[replace(scenario, faults=(fault,))]).stubbed == ("pricing",)


def test_a_component_that_a_scenario_both_names_and_stubs_runs_itself_with_a_note() -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    scenario = load_scenario(SYSTEM / "scenarios/rush.yaml", topology)
    made = planned(topology, Changes(), scenarios=[replace(scenario, takes=("web", "pricing"))])
    assert made.stubbed == ()
    assert "pricing runs itself and no stub answers for it: scenario, rush (takes)" in made.notes


@pytest.mark.parametrize(("options", "fragment"), [
    ({"only": ["wbe"]}, "no component is called 'wbe'"),
    ({"stubs": ["db"]}, "no stub can answer for db"),
    ({"stubs": ["worker"]}, "no stub can answer for worker"),
    ({"only": ["pricing"], "stubs": ["pricing"]}, "asked for and to be stubbed"),
    ({"ttl_s": 3.0}, "lives at least 10 s after its last use, not 3 s"),
])
def test_impossible_wishes_are_refused(options: dict[str, object], fragment: str) -> None:
    topology = load_topology(SYSTEM / "stacks/tiny/topology.yaml")
    with pytest.raises(UsageError, match=fragment):
        planned(topology, Changes(), **options)


text = st.text(min_size=1, max_size=60)


@given(text, text)
def test_an_environment_id_is_a_dns_label_of_at_most_40_characters(repo: str, ref: str) -> None:
    found = environment_id(ROOT, repo, ref)
    assert len(found) <= 40
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
    assert found == environment_id(ROOT, repo, ref)


@given(st.tuples(text, text, text), st.tuples(text, text, text))
def test_two_branches_or_checkouts_never_share_an_id(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    def made(each: tuple[str, str, str]) -> str:
        return environment_id(ROOT / each[0].encode().hex(), each[1], each[2])

    assert (made(one) == made(other)) == (one == other)


def test_long_branches_that_differ_at_their_end_have_different_ids() -> None:
    ids = {environment_id(ROOT, "shop", f"feature/{'x' * 60}-{index}") for index in range(50)}
    assert len(ids) == 50
    assert environment_id(ROOT, "Shop", "fix/outbox").startswith("shop-fix-outbox-")


# With a real git

def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    shutil.copytree(SYSTEM, root)
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "begin")
    git(root, "switch", "-c", "fix/worker")
    return root


def test_committed_uncommitted_and_untracked_changes_count_and_those_of_the_base_do_not(checkout: Path) -> None:
    git(checkout, "switch", "main")
    (checkout / "later.txt").write_text("on main")
    git(checkout, "add", "later.txt")
    git(checkout, "commit", "-m", "later")
    git(checkout, "switch", "fix/worker")
    (checkout / "committed.txt").write_text("x")
    git(checkout, "add", "committed.txt")
    git(checkout, "commit", "-m", "work")
    (checkout / "staged ä.txt").write_text("x")
    git(checkout, "add", "staged ä.txt")
    (checkout / "untracked.txt").write_text("x")
    (checkout / "envctl.yaml").unlink()
    project = Project(checkout, checkout / "stacks/tiny")
    assert [str(file) for file in changed_files(project, "main")] == ["committed.txt", "envctl.yaml", "staged ä.txt", "untracked.txt"]


def test_a_branch_that_changes_one_service_plans_that_service(checkout: Path) -> None:
    (checkout / "stacks/tiny/services/worker/main.py").write_text("changed = True\n")
    project = load_project(checkout)
    made = plan_project(project, load_topology(project.topology_file))
    assert [(each.component, each.why) for each in made.selected] == [("db", "needed"), ("bus", "needed"), ("worker", "changed")]
    assert made.labels["envctl.dev/ref"] == "fix/worker"
    assert made.env_id.startswith("tiny-fix-worker-")


def test_a_topology_change_is_compared_with_the_base(checkout: Path) -> None:
    file = checkout / "stacks/tiny/topology.yaml"
    file.write_text("# a comment moves every line\n" + file.read_text().replace("cpus: 0.5", "cpus: 1"))
    project = load_project(checkout)
    made = plan_project(project, load_topology(project.topology_file))
    assert [each.component for each in made.selected if each.why == "changed"] == ["web"]


@pytest.mark.parametrize(("before", "said"), [(None, "has none"), ("envctl: topology/v0\n", "can't be read by today's rules")])
def test_a_topology_that_cannot_be_compared_with_the_base_is_planned_in_full(checkout: Path, before: str | None, said: str) -> None:
    file = checkout / "stacks/tiny/topology.yaml"
    today = file.read_text()
    git(checkout, "switch", "main")
    if before is None:
        file.unlink()
    else:
        file.write_text(before)
    git(checkout, "commit", "-a", "-m", "before")
    git(checkout, "switch", "-c", "adopt")
    file.write_text(today.replace("cpus: 0.5", "cpus: 1"))
    (checkout / "stacks/tiny/services/worker/main.py").write_text("changed = True\n")
    project = load_project(checkout)
    made = plan_project(project, load_topology(project.topology_file))
    assert made.left_out == ()
    assert [each.component for each in made.selected if each.why == "changed"] == ["worker"]
    assert "stacks/tiny/topology.yaml" in made.notes[0]
    assert said in made.notes[0]


def test_a_project_below_the_root_of_its_repository_sees_only_its_own_files(checkout: Path) -> None:
    inner = checkout / "inner"
    shutil.copytree(SYSTEM, inner)
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "inner")
    (checkout / "outside.txt").write_text("x")
    (inner / "stacks/tiny/topology.yaml").write_text((SYSTEM / "stacks/tiny/topology.yaml").read_text() + "\n")
    found = changes(load_project(inner), "HEAD")
    assert [str(file) for file in found.files] == ["stacks/tiny/topology.yaml"]
    assert found.topology is not None


def test_nothing_changed_and_nothing_asked_for_is_the_full_topology_with_a_note(checkout: Path) -> None:
    project = load_project(checkout)
    made = plan_project(project, load_topology(project.topology_file))
    assert made.left_out == ()
    assert "nothing changed against main" in made.notes[0]


def test_a_missing_base_is_an_error_when_named_and_the_full_topology_when_not(checkout: Path) -> None:
    project = replace(load_project(checkout), base="origin/main")
    topology = load_topology(project.topology_file)
    with pytest.raises(UsageError, match="no branch or commit 'origin/trunk'") as caught:
        plan_project(project, topology, None, Ask(base="origin/trunk"))
    assert "git fetch origin trunk" in caught.value.hint
    made = plan_project(project, topology)
    assert made.left_out == ()
    assert "origin/main" in made.notes[0]


def test_without_a_repository_everything_is_planned(tmp_path: Path) -> None:
    shutil.copytree(SYSTEM, tmp_path / "tiny")
    project = load_project(tmp_path / "tiny")
    made = plan_project(project, load_topology(project.topology_file))
    assert made.left_out == ()
    assert "unknown" in made.notes[0]
