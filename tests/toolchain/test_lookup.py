from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import CapabilityError
from envctl.toolchain import available, find
from envctl.toolchain.lookup import parts, satisfies

numbers = st.lists(st.integers(0, 99), min_size=1, max_size=4)


def dotted(version: list[int]) -> str:
    return ".".join(map(str, version))


@given(numbers, st.integers(1, 4))
def test_a_version_satisfies_each_of_its_own_prefixes_and_itself_as_a_minimum(version: list[int], length: int) -> None:
    assert satisfies(dotted(version), dotted(version[:length]))
    assert satisfies(dotted(version), f">={dotted(version)}")
    assert satisfies(dotted(version), "")


@given(numbers, numbers)
def test_only_whole_parts_of_a_version_count(have: list[int], asked: list[int]) -> None:
    assert satisfies(dotted(have), dotted(asked)) == (have[: len(asked)] == asked)
    assert satisfies(dotted(have), f">={dotted(asked)}") == (have >= asked)


def test_a_packager_s_suffix_does_not_count() -> None:
    assert parts("15.18-0+deb12u1") == (15, 18)


def test_a_program_of_the_machine_comes_before_a_newer_one_in_the_cache(program: Callable, keep: Callable) -> None:
    program("redis-server", "Redis server v=7.0.15 sha=0")
    path = program("redis-cli", "redis-cli 7.0.15")
    keep("redis", "7.4.1", "redis-server", "redis-cli")
    tool = find("redis")
    assert (tool.version, tool.source, tool.programs["redis-cli"]) == ("7.0.15", "machine", path)
    assert [tool.version for tool in available("redis")] == ["7.0.15", "7.4.1"]


def test_the_cache_serves_a_version_that_the_machine_does_not_have(program: Callable, keep: Callable) -> None:
    program("redis-server", "Redis server v=6.2.1 sha=0")
    program("redis-cli", "redis-cli 6.2.1")
    home = keep("redis", "7.4.1", "redis-server", "redis-cli")
    tool = find("redis", "7")
    assert (tool.version, tool.home, tool.roots) == ("7.4.1", home, (home,))
    assert tool.env == {"LD_LIBRARY_PATH": f"{home}/lib"}


def test_the_newest_fitting_version_is_taken_by_number_and_not_by_spelling(keep: Callable) -> None:
    for version in ("4.1.9", "4.1.10", "4.2.0"):
        keep("kafka", version)
    assert find("kafka", "4.1").version == "4.1.10"
    assert find("kafka").version == "4.2.0"


def test_another_major_version_is_refused_with_what_there_is_and_what_to_do(keep: Callable) -> None:
    keep("kafka", "4.1.1")
    with pytest.raises(CapabilityError, match=r"kafka 3.9 is not here; there is: 4\.1\.1") as refused:
        find("kafka", "3.9")
    assert refused.value.hint == "run `envctl setup kafka@3.9`"


def test_an_unknown_tool_lists_the_known_ones(bare: Path) -> None:
    with pytest.raises(CapabilityError) as refused:
        find("mysql")
    assert "postgres" in refused.value.hint


def test_a_set_of_programs_that_is_not_whole_is_no_tool(program: Callable) -> None:
    program("redis-server", "Redis server v=7.0.15 sha=0")
    with pytest.raises(CapabilityError, match="there is: none"):
        find("redis")


def test_pulumi_of_another_version_on_path_is_passed_over(program: Callable, keep: Callable) -> None:
    program("pulumi", "v3.100.0")
    keep("pulumi", "3.250.0", "pulumi")
    assert find("pulumi").source == "cache"


def test_an_old_java_is_not_taken_unless_it_is_asked_for(program: Callable) -> None:
    program("java", "openjdk 11.0.2 2019-01-15")
    with pytest.raises(CapabilityError, match=r"java >=17 is not here; there is: 11\.0\.2"):
        find("java")
    assert find("java", "11").version == "11.0.2"


def test_a_program_is_asked_its_version_once_and_again_when_it_has_changed(program: Callable) -> None:
    path = program("java", "openjdk 17.0.1")
    asked = path.with_name("java.asked")
    assert [find("java").version for _ in range(3)] == ["17.0.1"] * 3
    assert asked.read_text().count("asked") == 1
    program("java", "openjdk 21.0.1")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert find("java").version == "21.0.1"


def test_a_program_that_cannot_run_is_not_taken(bare: Path) -> None:
    (bare / "java").write_text("#!/nonexistent\n")
    (bare / "java").chmod(0o755)
    with pytest.raises(CapabilityError):
        find("java")


def test_a_damaged_memory_of_versions_is_only_forgotten(program: Callable, bare: Path) -> None:
    program("java", "openjdk 17.0.1")
    find("java")
    (bare.parent / "cache/tools/machine.json").write_text("{")
    assert find("java").version == "17.0.1"


@pytest.mark.parametrize("damage", ["not json", "{}", '{"version": "1", "programs": [], "env": {}}'])
def test_a_damaged_tool_of_the_cache_is_as_if_it_were_not_there(keep: Callable, damage: str) -> None:
    (keep("kafka", "4.1.1") / "tool.json").write_text(damage)
    assert available("kafka") == ()


def test_a_tool_whose_programs_were_deleted_is_not_found(keep: Callable) -> None:
    (keep("pulumi", "3.250.0", "pulumi") / "pulumi").unlink()
    assert available("pulumi") == ()


def test_a_cache_can_be_moved(keep: Callable, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("pulumi", "3.250.0", "pulumi")
    (bare.parent / "cache").rename(bare.parent / "elsewhere")
    monkeypatch.setenv("ENVCTL_CACHE", str(bare.parent / "elsewhere"))
    assert find("pulumi").programs["pulumi"].is_relative_to(bare.parent / "elsewhere")


def test_a_tool_outside_usr_names_its_home_as_a_root(program: Callable, bare: Path) -> None:
    program("redis-server", "Redis server v=7.0.15 sha=0")
    program("redis-cli", "redis-cli 7.0.15")
    assert find("redis").roots == (bare,)


def test_the_links_of_a_java_runtime_to_places_outside_it_are_roots(program: Callable, bare: Path) -> None:
    home, settings = bare.parent / "jvm", bare.parent / "etc/java/security"
    for directory in (home / "bin", home / "conf", settings):
        directory.mkdir(parents=True)
    program("java", "openjdk 17.0.1").rename(home / "bin/java")
    (bare / "java").symlink_to(home / "bin/java")
    (settings / "java.policy").write_text("")
    (home / "conf/security").symlink_to(settings)
    (home / "conf/policy").symlink_to(settings / "java.policy")
    (home / "conf/dangling").symlink_to("/nonexistent")
    assert set(find("java").roots) == {home, settings}
