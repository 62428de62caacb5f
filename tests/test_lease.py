from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "stack"))

from stack_bench import Bench, make_bench

from envctl.cli.down import _every
from envctl.errors import NoEnvironmentError, UsageError
from envctl.lease import collect, garbage, in_use, locate, survey
from envctl.stack import lock, tear_down
from envctl.stack.state import State
from envctl.stack_provider.ground import installed
from envctl.substrates.base import Found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from make_bench(tmp_path, monkeypatch)


def make(bench: Bench, env_id: str, ttl_s: float = 600.0) -> None:
    world = bench.ground.realiser(bench.ground.directory(env_id))
    world.create_environment(env_id, ttl_s=ttl_s, labels={"stack": "shop", "plan_digest": ""})


def why(bench: Bench) -> dict[str, str]:
    return {each.env_id: each.why for each in garbage(bench.root, substrates=bench.ground)}


def gc(bench: Bench, **options: object) -> list[str]:
    _, removed = collect(bench.root, substrates=bench.ground, **options)
    return [each.env_id for each in removed if "kept" not in "".join(each.notes)]


def test_an_environment_is_located_by_its_id(bench: Bench) -> None:
    make(bench, "one")
    assert locate("one", substrates=bench.ground)[1].id == "one"
    with pytest.raises(NoEnvironmentError, match="two"):
        locate("two", substrates=bench.ground)


def test_a_survey_tells_alive_expired_and_dead_apart(bench: Bench) -> None:
    make(bench, "alive")
    make(bench, "expired", ttl_s=-600)
    make(bench, "dead")
    bench.ground.realiser(bench.ground.directory("dead")).die()
    assert {each.id: each.health for each in survey(substrates=bench.ground)} == {
        "alive": "alive", "expired": "expired", "dead": "dead",
    }


def test_an_environment_that_is_silent_is_not_given_up_before_its_lease_has_run_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"lasting": time.time() + 600, "over": time.time() - 600}
    found = [Found(name, bench.ground.directory(name), alive=True, expires_at=at) for name, at in made.items()]
    lost = Found("lost", bench.ground.directory("lost"), alive=False, unknown="there is no context kind any more")
    far = Found("far", bench.ground.directory("far"), alive=True, apart=True)
    monkeypatch.setattr("disk_ground.DiskGround.environments", lambda *_: (*found, lost, far))
    monkeypatch.setattr("envctl.stack.operations.ANSWER_S", 0.0)
    assert {each.id: each.health for each in survey(substrates=bench.ground)} == {
        "lasting": "unknown", "over": "expired", "lost": "unknown", "far": "unknown",
    }
    assert why(bench) == {"over": "its lease has run out"}


def test_one_that_ends_while_it_is_looked_at_is_not_taken_for_dead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Found("ending", bench.ground.directory("ending"), alive=True)
    monkeypatch.setattr("disk_ground.DiskGround.environments", lambda _, env_id="": () if env_id else (there,))
    monkeypatch.setattr("envctl.stack.operations.ANSWER_S", 0.0)
    assert survey(substrates=bench.ground) == ()


@pytest.mark.parametrize(("name", "verb"), [("used", "up"), ("used.run", "run")])
def test_down_of_all_keeps_what_a_command_works_on_unless_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, verb: str,
) -> None:
    for env_id in ("idle", "used"):
        make(bench, env_id)
    seen = survey(substrates=bench.ground)
    monkeypatch.setattr("envctl.lease.survey", lambda: seen)
    with lock.hold(seen[0].directory.parent, name, verb):
        assert {each.id: bool(in_use(each)) for each in seen} == {"idle": False, "used": True}
        assert [name for name, _ in _every(also_used=False)] == ["idle"]
        assert f"used is kept: envctl {verb} (process" in capsys.readouterr().err
        assert [name for name, _ in _every(also_used=True)] == ["idle", "used"]
    assert [name for name, _ in _every(also_used=False)] == ["idle", "used"]


@pytest.mark.parametrize("name", installed.names())
def test_the_locks_of_our_environments_are_in_one_place_on_every_substrate(name: str, bench: Bench) -> None:
    assert installed(name).directory("e") == lock.environments_directory() / "e" == bench.ground.directory("e")


def test_an_environment_has_its_locks_beside_it_wherever_it_is_found(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (bench.ground.cache / "envs").symlink_to(tmp_path / "disk" / "large")
    make(bench, "e")
    (there,) = [replace(found, directory=found.directory.resolve()) for found in bench.ground.environments()]
    monkeypatch.setattr("disk_ground.DiskGround.environments", lambda *_: (there,) if there.directory.exists() else ())
    (seen,) = survey(substrates=bench.ground)
    with lock.hold(lock.environments_directory(), "e", "up"):
        assert in_use(seen).startswith("envctl up (process")
    assert tear_down("e", directory=seen.directory, substrates=bench.ground).env_id == "e"
    assert not there.directory.exists()
    assert list((tmp_path / "disk").iterdir()) == [tmp_path / "disk" / "large"]


def test_gc_removes_what_is_over_and_nothing_else(bench: Bench) -> None:
    make(bench, "alive")
    make(bench, "expired", ttl_s=-600)
    make(bench, "dead")
    bench.ground.realiser(bench.ground.directory("dead")).die()
    State(bench.root / ".envctl" / "state", "shop", "forgotten").ensure()
    State(bench.root / ".envctl" / "state", "shop", "alive").ensure()
    assert why(bench) == {
        "dead": "it died", "expired": "its lease has run out", "forgotten": "only its Pulumi state is left",
    }
    assert sorted(gc(bench)) == ["dead", "expired", "forgotten"]
    assert [each.id for each in bench.ground.environments()] == ["alive"]
    assert State(bench.root / ".envctl" / "state", "shop", "alive").exists()
    assert why(bench) == {}


def test_a_dry_run_removes_nothing(bench: Bench) -> None:
    make(bench, "expired", ttl_s=-600)
    found, removed = collect(bench.root, dry_run=True, substrates=bench.ground)
    assert ([each.env_id for each in found], removed) == (["expired"], ())
    assert [each.id for each in bench.ground.environments()] == ["expired"]


def test_more_garbage_than_the_cap_removes_nothing(bench: Bench) -> None:
    for name in ("one", "two", "three"):
        make(bench, name, ttl_s=-600)
    with pytest.raises(UsageError, match="3 environments would be removed, more than 2"):
        gc(bench, cap=2)
    assert len(bench.ground.environments()) == 3


def test_a_listing_that_fails_removes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    make(bench, "expired", ttl_s=-600)
    State(bench.root / ".envctl" / "state", "shop", "forgotten").ensure()
    there = bench.ground.environments()

    def fails(*_: object) -> None:
        raise OSError("no /proc")

    with monkeypatch.context() as patch:
        patch.setattr(type(bench.ground), "environments", fails)
        with pytest.raises(OSError, match="no /proc"):
            gc(bench)
    assert bench.ground.environments() == there
    assert State(bench.root / ".envctl" / "state", "shop", "forgotten").exists()


def test_an_environment_that_a_command_works_on_is_no_garbage(bench: Bench) -> None:
    make(bench, "expired", ttl_s=-600)
    with lock.hold(bench.ground.cache / "envs", "expired", "up"):
        assert why(bench) == {}
    assert why(bench) == {"expired": "its lease has run out"}


def test_an_environment_that_came_back_to_life_after_the_listing_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    make(bench, "expired", ttl_s=-600)
    listed = garbage(bench.root, substrates=bench.ground)
    make(bench, "expired", ttl_s=600)
    monkeypatch.setattr("envctl.lease.garbage", lambda *_, **__: listed)
    assert gc(bench) == []
    assert [each.id for each in bench.ground.environments()] == ["expired"]


def test_a_state_with_resources_of_other_providers_is_never_garbage(bench: Bench) -> None:
    state = State(bench.root / ".envctl" / "state", "shop", "cloudy")
    state.ensure()
    raw = json.loads(state.checkpoint.read_text())
    raw["checkpoint"]["latest"] = {"resources": [{"urn": "urn:bucket", "type": "aws:s3/bucket:Bucket"}]}
    state.checkpoint.write_text(json.dumps(raw))
    assert why(bench) == {}


OTHERS = {
    "compressed": ("prod.json.gz", gzip.compress(b'{"checkpoint": {"latest": {"resources": [{"urn": "urn:bucket", "type": "aws:s3/bucket:Bucket"}]}}}')),
    "torn": ("prod.json", b'{"version":3,"checkpoint":{"sta'),
    "of another shape": ("prod.json", b'{"version":3,"checkpoint":{"latest":{"resources":["?"]}}}'),
    "with outputs only": (
        "prod.json", b'{"version":3,"checkpoint":{"latest":{"resources":[{"urn":"u","type":"pulumi:pulumi:Stack","outputs":{"a":"b"}}]}}}',
    ),
    "just made": ("prod.json", b'{"version":3,"checkpoint":{"stack":"organization/prod-infra/prod","latest":{"manifest":{}}}}'),
    "of a removed stack": ("prod.json.bak", b'{"version":3,"checkpoint":{"stack":"organization/prod-infra/prod","latest":null}}'),
    "of another environment": (
        "prod.json",
        b'{"checkpoint":{"latest":{"resources":[{"urn":"urn:pulumi:x::shop::envctl:index:Environment::x","type":"envctl:index:Environment"}]}}}',
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_gc_keeps_what_other_projects_have_in_the_same_backend(bench: Bench, kind: str) -> None:
    name, content = OTHERS[kind]
    root = bench.root / ".envctl" / "state"
    State(root, "shop", "forgotten").ensure()
    theirs = root / ".pulumi" / "stacks" / "prod-infra" / name
    past = root / ".pulumi" / "history" / "prod-infra" / "prod" / "prod-1.checkpoint.json"
    for file in (theirs, past):
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    assert gc(bench) == ["forgotten"]
    assert (theirs.read_bytes(), past.read_bytes()) == (content, content)


def test_gc_removes_a_dead_environment_and_keeps_its_state_where_that_cannot_be_read(bench: Bench) -> None:
    make(bench, "dead")
    bench.ground.realiser(bench.ground.directory("dead")).die()
    state = State(bench.root / ".envctl" / "state", "shop", "dead")
    state.ensure()
    state.checkpoint.write_text("{")
    _, (removed,) = collect(bench.root, substrates=bench.ground)
    assert f"{state.checkpoint} can't be read" in "".join(removed.notes)
    assert bench.ground.environments() == ()
    assert state.checkpoint.read_text() == "{"
