from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from stack_bench import Bench, node, system

from envctl.engines.base import Provision, Realisation
from envctl.errors import DeadlineError, LeakError, NoEnvironmentError, ResourceError, UsageError
from envctl.model.plan import Selection
from envctl.model.topology import Kafka, Postgres
from envctl.stack import memo
from envctl.stack.operations import bring_up, check_published, tear_down
from envctl.waiting import until

BUCKET = {
    "urn": "urn:pulumi:shop-main-1::shop::aws:s3/bucket:Bucket::b", "type": "aws:s3/bucket:Bucket", "custom": True, "id": "b",
    "provider": "urn:pulumi:shop-main-1::shop::pulumi:providers:aws::default::1",
}


def starts(bench: Bench) -> list[str]:
    return [line.split()[1] for line in bench.world.journal() if line.startswith("start")]


def test_an_environment_comes_up_in_the_order_of_its_needs(bench: Bench) -> None:
    said: list[str] = []
    up = bench.up(progress=said.append)
    assert {each.name for each in up.environment.nodes} == {"api-0", "db-0", "db-1", "web-0"}
    journal = bench.world.journal()
    assert journal[0] == "environment"
    assert sorted(journal[1:3]) == ["start db-0 1", "start db-1 1"]
    assert journal[3:6] == ["provision", "start api-0 1", "start web-0 1"]
    assert said[-1] == "web-0 ready"
    assert up.environment.endpoints["api.http"] == "127.0.0.1:8080"
    assert (up.unchanged, up.provisioned, up.environment.plan_digest) == (False, ("db",), "plan-1")


def test_a_second_up_with_nothing_changed_calls_no_engine_and_renews_the_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.up()
    monkeypatch.setattr("subprocess.Popen", None)
    second = bench.up()
    assert second.unchanged
    assert second.environment.expires_at > first.environment.expires_at
    assert second.environment.endpoints == first.environment.endpoints


def test_an_update_keeps_the_seed_that_the_living_environment_started_from(bench: Bench) -> None:
    directory = bench.ground.directory(bench.plan.env_id)
    bench.up(seed_key="seeded")
    assert bench.up(seed_key=None).unchanged
    assert bench.up(system(api="2"), digest="plan-2", seed_key=None).started == ("api-0",)
    assert getattr(memo.read(bench.ground.notebook(directory)), "variant", None) == "seeded"
    assert not bench.up(system(api="2"), digest="plan-2", seed_key="").unchanged
    tear_down(bench.plan.env_id, project=bench.root, substrates=bench.ground)
    bench.up(seed_key=None)
    assert getattr(memo.read(bench.ground.notebook(directory)), "variant", None) == ""


def test_an_environment_outlives_a_preparation_that_takes_longer_than_its_lease(bench: Bench) -> None:
    plan = replace(bench.plan, ttl_s=0.6)
    renewals: list[int] = []

    def slow() -> list[Realisation]:
        assert until(lambda: bench.world.journal().count("renew") >= 3, 20)
        renewals.append(bench.world.journal().count("renew"))
        return system()

    bring_up(plan, substrates=bench.ground, realise=slow)
    assert renewals


def test_ports_of_engines_are_published_only_on_request(bench: Bench) -> None:
    assert set(bench.up().environment.endpoints) == {"api.http", "web.http"}
    again = bench.up(publish=("db",))
    assert again.unchanged
    assert set(again.environment.endpoints) == {"api.http", "web.http", "db.http"}


def test_what_can_not_be_published_is_refused(bench: Bench) -> None:
    components = {"bus": Kafka(name="bus", version="4"), "db": Postgres(name="db", version="15")}
    topology = replace(bench.plan.topology, components=components)
    plan = replace(bench.plan, topology=topology, selected=tuple(Selection(name, "full") for name in components))
    check_published(plan, ["db"])
    for name, said in (("bus", "names that are known only inside"), ("bd", "no component of this environment is called 'bd'")):
        with pytest.raises(UsageError, match=said):
            check_published(plan, [name])


def test_a_changed_service_is_the_only_thing_that_is_replaced(bench: Bench) -> None:
    bench.up()
    pids = {each.name: each.pid for each in bench.world.environment().nodes}
    up = bench.up(system(api="2"), digest="plan-2")
    after = {each.name: each.pid for each in bench.world.environment().nodes}
    assert up.started == ("api-0",)
    assert up.provisioned == ()
    assert {name for name in pids if pids[name] != after[name]} == {"api-0"}


def test_a_component_that_is_left_out_is_removed(bench: Bench) -> None:
    bench.up()
    up = bench.up([each for each in system() if each.component != "web"], digest="plan-2")
    assert up.ended == ("web-0",)
    assert {each.name for each in bench.world.environment().nodes} == {"api-0", "db-0", "db-1"}


def test_a_node_that_died_is_started_again_though_the_state_calls_it_the_same(bench: Bench) -> None:
    bench.up()
    bench.kill("db-1")
    up = bench.up()
    assert up.started == ("db-1",)
    assert up.provisioned == ("db",), "new data needs provisioning again"
    assert bench.up().unchanged


def test_a_cell_that_died_is_made_again_with_everything_in_it(bench: Bench) -> None:
    bench.up()
    bench.world.die()
    up = bench.up()
    assert set(up.started) == {"api-0", "db-0", "db-1", "web-0"}
    assert up.provisioned == ("db",)


def test_a_node_that_never_becomes_ready_is_named_with_its_last_words(bench: Bench) -> None:
    with pytest.raises(DeadlineError, match=r"api-0 did not answer on port 1 within 2.0 s\n    its last words"):
        bench.up(system(NEVER_READY="1"), ready_timeout_s=2.0)
    assert {each.name for each in bench.world.environment().nodes} >= {"db-0", "db-1"}
    bench.up()
    assert sorted(starts(bench)) == ["api-0", "db-0", "db-1", "web-0"], "what was there is adopted, nothing is made twice"


def test_a_provision_that_fails_is_explained_and_tried_again(bench: Bench) -> None:
    broken = Provision("db", ("-c", "print('no such table'); raise SystemExit(3)"), "p1")
    with pytest.raises(ResourceError, match=r"db could not be provisioned \(exit 3\)\n    no such table"):
        bench.up([Realisation("db", (), (node("db-0"),), broken)])
    up = bench.up([Realisation("db", (), (node("db-0"),), Provision("db", ("-c", ""), "p1"))])
    assert (up.started, up.provisioned) == ((), ("db",))


def test_an_engine_that_cannot_prepare_is_the_cause_that_is_told(bench: Bench) -> None:
    def fails() -> list[Realisation]:
        raise ResourceError("the build of api failed")

    with pytest.raises(ResourceError, match="the build of api failed"):
        bring_up(bench.plan, substrates=bench.ground, realise=fails)


def test_down_leaves_nothing_and_forgets_the_state(bench: Bench) -> None:
    bench.up()
    down = tear_down(bench.plan.env_id, substrates=bench.ground)
    assert down.notes == ()
    assert not bench.state.leftovers()
    assert [path.name for path in (bench.root / "cache" / "envs").iterdir() if not path.name.endswith(".journal")] == []
    with pytest.raises(NoEnvironmentError):
        tear_down(bench.plan.env_id, substrates=bench.ground, project=bench.root)


def test_down_says_so_where_the_state_is_lost(bench: Bench) -> None:
    bench.up()
    bench.state.drop()
    assert "state was lost" in tear_down(bench.plan.env_id, substrates=bench.ground).notes[0]


def test_down_removes_what_is_left_of_a_cell_that_died(bench: Bench) -> None:
    bench.up()
    bench.world.die()
    assert "already ended" in tear_down(bench.plan.env_id, substrates=bench.ground).notes[0]
    assert not bench.state.leftovers()


def test_down_fails_with_a_list_of_what_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.up()
    monkeypatch.setattr("disk_ground.DiskWorld.end_environment", lambda _: None)
    with pytest.raises(LeakError, match=f"directory {bench.world.directory}"):
        tear_down(bench.plan.env_id, substrates=bench.ground)


def test_resources_of_other_providers_are_not_forgotten_with_the_state(bench: Bench) -> None:
    bench.up()
    raw = json.loads(bench.state.checkpoint.read_text())
    raw["checkpoint"]["latest"]["resources"].append(BUCKET)
    bench.state.checkpoint.write_text(json.dumps(raw))
    assert bench.state.foreign() == [BUCKET["urn"]]
    with pytest.raises(ResourceError, match="aws"):
        tear_down(bench.plan.env_id, substrates=bench.ground)
    assert bench.state.exists()


def test_down_keeps_everything_where_the_state_cannot_be_read(bench: Bench) -> None:
    bench.up()
    stacks = bench.state.checkpoint.parent
    whole = bench.state.checkpoint.read_bytes()
    bench.state.checkpoint.write_bytes(whole[:100])
    (stacks / f"{bench.plan.env_id}.json.bak").unlink()
    with pytest.raises(ResourceError, match=rf"{bench.state.checkpoint} can't be read"):
        tear_down(bench.plan.env_id, substrates=bench.ground)
    bench.state.checkpoint.unlink()
    compressed = stacks / f"{bench.plan.env_id}.json.gz"
    compressed.write_bytes(gzip.compress(whole))
    with pytest.raises(ResourceError, match=rf"{compressed} is compressed"):
        tear_down(bench.plan.env_id, substrates=bench.ground)
    with pytest.raises(ResourceError, match=rf"{compressed} is compressed"):
        bench.up(digest="plan-2")
    assert compressed.exists()
    assert bench.ground.environments()
    compressed.rename(f"{compressed}.bak")
    with pytest.raises(ResourceError, match=rf"{compressed}\.bak is compressed"):
        tear_down(bench.plan.env_id, substrates=bench.ground)
    bench.state.checkpoint.write_bytes(whole)  # as Pulumi leaves it when it is no longer told to compress
    tear_down(bench.plan.env_id, substrates=bench.ground)
    assert not bench.state.leftovers()


def test_down_does_not_touch_a_stack_that_envctl_never_updated(bench: Bench) -> None:
    bench.up()
    theirs = bench.state.checkpoint.parents[1] / "prod-infra" / "prod.json"
    theirs.parent.mkdir()
    theirs.write_text('{"version":3,"checkpoint":{"stack":"organization/prod-infra/prod","latest":{}}}')
    with pytest.raises(ResourceError, match=r"prod\.json is not envctl's"):
        tear_down("prod", project=bench.root, substrates=bench.ground)
    assert theirs.exists()


def test_what_is_under_way_with_resources_of_other_providers_is_not_forgotten(bench: Bench) -> None:
    bench.up()
    raw = json.loads(bench.state.checkpoint.read_text())
    raw["checkpoint"]["latest"]["pending_operations"] = [{"resource": BUCKET, "type": "creating"}]
    bench.state.checkpoint.write_text(json.dumps(raw))
    assert bench.state.foreign() == [BUCKET["urn"]]


@pytest.mark.parametrize("theirs", [
    "stacks/prod.json", "stacks/prod-infra/prod.json.gz", "history/prod-infra/prod/prod-1.history.json", "credentials.json",
    "locks/organization/prod-infra/prod/1.json",
])
def test_the_last_stack_leaves_what_others_keep_in_the_backend(bench: Bench, theirs: str) -> None:
    bench.up()
    file = bench.state.root / ".pulumi" / theirs
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("theirs")
    tear_down(bench.plan.env_id, substrates=bench.ground)
    assert not bench.state.leftovers()
    left = {path.relative_to(bench.state.root).as_posix() for path in bench.state.root.rglob("*") if path.is_file()}
    assert left - {".pulumi/meta.yaml.attrs"} == {".pulumi/meta.yaml", f".pulumi/{theirs}"}


def test_the_last_stack_takes_the_backend_with_it(bench: Bench) -> None:
    bench.up()
    (bench.state.root / ".pulumi" / ".meta.yaml.123").write_text("version: 1\n")  # whoever wrote it was killed
    tear_down(bench.plan.env_id, substrates=bench.ground)
    assert not bench.state.root.exists()


def test_where_only_the_state_tells_of_an_environment_its_substrate_ends_what_may_be_left_of_it(bench: Bench) -> None:
    bench.up()
    world = bench.world
    world.end_environment()  # and what it shared with others has not been ended
    notes = tear_down(bench.plan.env_id, project=bench.root, substrates=bench.ground).notes
    assert notes == ("it had already ended; what was left of it is removed",)
    assert world.journal()[-2:] == ["end", "end"]


def test_what_others_made_of_an_environment_is_forgotten_once_it_has_ended(bench: Bench) -> None:
    bench.up()
    raw = json.loads(bench.state.checkpoint.read_text())
    stack = raw["checkpoint"]["latest"]["resources"][0]["urn"].rpartition("::pulumi:")[0]
    provider = {"urn": f"{stack}::envctl:kubernetes:Objects$pulumi:providers:kubernetes::cluster", "type": "pulumi:providers:kubernetes",
                "custom": True, "id": "1", "inputs": {}, "outputs": {}}
    service = {"urn": f"{stack}::envctl:kubernetes:Objects$kubernetes:core/v1:Service::api", "type": "kubernetes:core/v1:Service",
               "custom": True, "id": "api", "provider": f"{provider['urn']}::1"}
    others = raw["checkpoint"]["latest"]["resources"]
    for each in others:
        if each["type"] == "envctl:index:Node":  # as the program has it: its objects first
            each["dependencies"] = [*each.get("dependencies", ()), service["urn"]]
            each["propertyDependencies"] = {"spec": [service["urn"]]}
    raw["checkpoint"]["latest"]["resources"] = [others[0], provider, service, *others[1:]]
    bench.state.checkpoint.write_text(json.dumps(raw))
    assert bench.state.below_ours()
    bench.world.die()
    bench.up(digest="plan-2")  # fails where it is not forgotten: the engine has no such provider to end it with
    assert not bench.state.below_ours()


def test_the_state_is_never_compressed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_DIY_BACKEND_GZIP", "true")
    bench.up()
    assert bench.state.exists()
    assert bench.state.resources()


def test_stacks_in_the_old_layout_are_not_hidden_from_pulumi(bench: Bench) -> None:
    theirs = bench.state.root / ".pulumi" / "stacks" / "prod.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"version":3,"checkpoint":{"stack":"prod","latest":null}}')
    with pytest.raises(ResourceError, match="old layout"):
        bench.up()
    assert [path for path in bench.state.root.rglob("*") if path.is_file()] == [theirs]
