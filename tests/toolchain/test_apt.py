from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from envctl.errors import CapabilityError, ResourceError
from envctl.toolchain import apt, available, ensure
from envctl.toolchain.client import run

PLANNED = """
Reading package lists...
Inst libjemalloc2 (5.3.0-1 Debian:12/oldstable [amd64])
Inst libssl3 [3.0.14-1] (3.0.16-1 Debian:12/oldstable [amd64])
Inst libllvm14 (1:14.0.6-12 Debian:12/oldstable [amd64])
Inst libjson-perl (4.10-1 Debian:12/oldstable [all])
Inst liblzf1:arm64 (3.6-3 Debian:12/oldstable [arm64])
Inst ssl-cert (1.1.2 Debian:12/oldstable [all])
Inst redis-tools (5:7.0.15-1 Debian:12/oldstable [amd64])
Conf libjemalloc2 (5.3.0-1 Debian:12/oldstable [amd64])
"""

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt-get")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.rglob(".new-*")), "a scratch directory was left"


def test_only_libraries_that_are_missing_and_loaded_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "run", lambda _argv: PLANNED)
    assert list(apt._missing_libraries(("redis-tools",), ())) == ["libjemalloc2=5.3.0-1", "liblzf1=3.6-3"]


def test_absolute_links_lead_to_their_targets_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "etc/maven").mkdir(parents=True)
    (tmp_path / "etc/maven/m2.conf").write_text("kept")
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "usr/share/m2.conf").symlink_to("/etc/maven/m2.conf")
    (tmp_path / "usr/share/passwd").symlink_to("/etc/passwd")
    (tmp_path / "usr/share/near").symlink_to("m2.conf")
    apt._keep_links_inside(tmp_path)
    assert {path.name: str(path.readlink()) for path in (tmp_path / "usr/share").iterdir()} == {
        "m2.conf": "../../etc/maven/m2.conf", "passwd": "/etc/passwd", "near": "m2.conf",
    }


def test_the_library_path_names_each_directory_with_libraries_once(tmp_path: Path) -> None:
    for library in ("usr/lib/x86_64-linux-gnu/liba.so.1", "usr/lib/x86_64-linux-gnu/libb.so.2", "lib/x86_64-linux-gnu/libc.so"):
        (tmp_path / "root" / library).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / library).touch()
    assert apt.library_path(tmp_path / "root") == "{home}/root/lib/x86_64-linux-gnu:{home}/root/usr/lib/x86_64-linux-gnu"


def test_a_machine_without_apt_says_so(bare: Path) -> None:
    with pytest.raises(CapabilityError, match="apt-get is not on this machine"):
        apt.unpack(("nftables",), bare / "tree", print)


@needs_apt
@pytest.mark.slow
def test_redis_is_fetched_as_whoever_we_are_and_runs(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.toolchain.lookup._directories", lambda _name: iter(()))  # as on a machine without it
    ensure(["redis"])
    (redis,) = available("redis")
    assert redis.version in run([redis.programs["redis-cli"], "--version"], env=redis.env)
    assert redis.home.is_relative_to(empty_cache)


@needs_apt
@pytest.mark.slow
def test_stale_or_missing_lists_are_replaced_by_lists_in_the_cache(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.toolchain.lookup._directories", lambda _name: iter(()))
    settings = empty_cache / "apt.conf"  # as on a machine whose lists were never fetched
    settings.write_text(f'Dir::State::Lists "{empty_cache}/none";\n')
    monkeypatch.setenv("APT_CONFIG", str(settings))
    said: list[str] = []
    ensure(["nft"], progress=lambda _tool, doing: said.append(doing))
    assert "fetching package lists into the cache" in said
    (nft,) = available("nft")
    assert nft.version in run([nft.programs["nft"], "--version"], env=nft.env)


@needs_apt
@pytest.mark.slow
def test_a_version_that_no_supplier_has_lists_those_on_offer(empty_cache: Path) -> None:
    with pytest.raises(ResourceError, match=r"no supplier has PostgreSQL 8; apt offers here: \d+"):
        ensure(["postgres@8"])
    assert not list((empty_cache / "tools/postgres").iterdir())
