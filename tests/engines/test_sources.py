from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.engines.base import Site
from envctl.engines.sources import source_copy, source_digests
from envctl.errors import ResourceError, SpecError
from envctl.model.topology import Build, Image, Postgres, Redis, Service, Source

MakeSite = Callable[..., Site]


def service(kind: str = "tree", path: str = "web", **more: str) -> Service:
    return Service(name="web", line=4, source=Source(kind, path, **more), command=("x",))  # type: ignore[arg-type]


def git(directory: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(("git", *who, *arguments), cwd=directory, check=True, capture_output=True)


def test_an_edit_during_a_run_changes_nothing_and_the_next_copy_is_another(site: MakeSite, stack: Path) -> None:
    (stack / "web").mkdir()
    (stack / "web" / "app.py").write_text("1")
    one = site(service())
    first, first_id = source_copy(one.topology, service(), one.cache)
    (stack / "web" / "app.py").write_text("2")
    second, second_id = source_copy(one.topology, service(), one.cache)
    assert (first / "app.py").read_text() == "1"
    assert (second / "app.py").read_text() == "2"
    assert first_id != second_id


def test_a_link_that_leads_out_of_the_source_is_refused_and_one_within_is_kept(site: MakeSite, stack: Path) -> None:
    (stack / "web" / "sub").mkdir(parents=True)
    (stack / "web" / "sub" / "up").symlink_to("../app.py")
    one = site(service())
    copy, _ = source_copy(one.topology, service(), one.cache)
    assert (copy / "sub" / "up").readlink() == Path("../app.py")
    (stack / "web" / "shared").symlink_to("../shared")
    with pytest.raises(ResourceError, match=r"web/shared is a link to ../shared, which is no part of the source"):
        source_copy(one.topology, service(), one.cache)


def test_a_single_file_is_a_source_too(site: MakeSite, stack: Path) -> None:
    (stack / "web").write_text("#!/bin/sh\n")
    copy, _ = source_copy(site(service()).topology, service(), stack.parent / "cache")
    assert (copy / "web").read_text() == "#!/bin/sh\n"


def test_a_git_ref_is_exported_as_it_was(site: MakeSite, stack: Path) -> None:
    (stack / "web").mkdir()
    (stack / "web" / "app.py").write_text("then")
    git(stack.parent, "init", "-q")
    git(stack.parent, "add", ".")
    git(stack.parent, "commit", "-qm", "one")
    git(stack.parent, "tag", "v1")
    (stack / "web" / "app.py").write_text("now")
    one = site()
    copy, content = source_copy(one.topology, service("git", ref="v1"), one.cache)
    assert (copy / "app.py").read_text() == "then"
    assert content.startswith("git-")
    for wrong, words in ((service("git", ref="v9"), "no commit 'v9'"), (service("git", "no", ref="v1"), "does not exist in git")):
        with pytest.raises(SpecError, match=words):
            source_copy(one.topology, wrong, one.cache)


def tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("bin/run")
        member.size, member.mode = 2, 0o755
        archive.addfile(member, io.BytesIO(b"hi"))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("bin/run")
        member.external_attr = 0o755 << 16
        archive.writestr(member, "hi")


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_artifact_is_verified_and_unpacked_with_its_executable_bits(
    site: MakeSite, stack: Path, pack: Callable[[Path], None]
) -> None:
    pack(stack / "web")
    right = hashlib.sha256((stack / "web").read_bytes()).hexdigest()
    one = site()
    copy, _ = source_copy(one.topology, service("artifact", sha256=right), one.cache)
    assert (copy / "bin" / "run").read_text() == "hi"
    assert (copy / "bin" / "run").stat().st_mode & 0o100
    with pytest.raises(SpecError, match=rf"topology.yaml:4: components.web.source.sha256: web has the SHA-256 {right}"):
        source_copy(one.topology, service("artifact", sha256="0" * 64), one.cache)
    assert not (one.cache / "sources" / ("0" * 64)).exists()


def test_an_archive_cannot_write_outside_of_its_directory(site: MakeSite, stack: Path) -> None:
    with tarfile.open(stack / "web", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    right = hashlib.sha256((stack / "web").read_bytes()).hexdigest()
    one = site()
    with pytest.raises(SpecError, match="cannot be unpacked"):
        source_copy(one.topology, service("artifact", sha256=right), one.cache)
    assert not (one.cache / "evil").exists()


def test_sources_paths_inputs_migrations_and_configuration_all_decide_what_a_component_is(site: MakeSite, stack: Path) -> None:
    for name in ("web/app.py", "shared/lib.py", "requirements.txt", "migrations/orders/1.sql"):
        (stack / name).parent.mkdir(parents=True, exist_ok=True)
        (stack / name).write_text("1")
    web = replace(service(), paths=("shared",), build=Build(("make",), ("requirements.txt",)))
    db = Postgres(name="db", version="15", databases=("orders", "bare"), migrations="migrations/{database}")
    topology = site(web, db, Redis(name="cache", version="7")).topology
    before = source_digests(topology)
    for name, changed in (
        ("web/app.py", "web"), ("shared/lib.py", "web"), ("requirements.txt", "web"), ("migrations/orders/1.sql", "db"),
    ):
        (stack / name).write_text("2")
        after = source_digests(topology)
        assert {component for component in after if after[component] != before[component]} == {changed}, name
        before = after
    moved = replace(topology, components={**topology.components, "web": replace(web, env={"A": "1"}, line=99)})
    assert source_digests(moved)["web"] != before["web"]
    assert source_digests(replace(topology, components={**topology.components, "web": replace(web, line=99)})) == before


def test_all_sources_that_are_missing_are_named_at_once(site: MakeSite) -> None:
    db = Postgres(name="db", version="15", databases=("a",), migrations="migrations/{database}")
    with pytest.raises(SpecError) as caught:
        source_digests(site(service(), db).topology)
    assert [problem.field for problem in caught.value.problems] == ["components.web.source", "components.db.migrations"]


def test_the_context_of_an_image_as_docker_sees_it_and_its_files_decide_what_a_component_is(site: MakeSite, stack: Path) -> None:
    for name in ("app/Dockerfile", "app/src/main.py", "app/notes.md", "etc/site.conf", "Outside"):
        (stack / name).parent.mkdir(parents=True, exist_ok=True)
        (stack / name).write_text("1")
    (stack / "app/.dockerignore").write_text("*.md\n")
    app = Service(name="app", image=Image(context="app", files={"/etc/site.conf": "etc/site.conf"}))
    other = Service(name="other", image=Image(context="app", dockerfile="../Outside"))
    named = Service(name="named", image=Image("nginx:1.27"))
    topology = site(app, other, named).topology
    before = source_digests(topology)
    for name, changed in (
        ("app/src/main.py", {"app", "other"}), ("app/notes.md", set()), ("etc/site.conf", {"app"}), ("Outside", {"other"}),
        ("app/new.py", {"app", "other"}), ("app/Dockerfile", {"app", "other"}),
    ):
        (stack / name).write_text("2")
        after = source_digests(topology)
        assert {component for component in after if after[component] != before[component]} == changed, name
        before = after
    tagged = replace(topology, components={**topology.components, "named": replace(named, image=Image("nginx:1.28"))})
    assert source_digests(tagged)["named"] != before["named"]


def test_a_program_in_both_forms_is_decided_by_both(site: MakeSite, stack: Path) -> None:
    (stack / "web").mkdir()
    (stack / "web/Dockerfile").write_text("1")
    (stack / "web/.dockerignore").write_text("*\n")
    both = site(replace(service(), image=Image(context="web"))).topology
    before = source_digests(both)
    (stack / "web/app.py").write_text("1")
    assert source_digests(both) != before
