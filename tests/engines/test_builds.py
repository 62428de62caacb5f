from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.engines.base import Site
from envctl.engines.builds import built
from envctl.engines.sources import source_copy
from envctl.errors import ResourceError
from envctl.model.topology import Build, Service, Source

MakeSite = Callable[..., Site]


@pytest.fixture
def build(site: MakeSite, stack: Path) -> Callable[..., Path]:
    (stack / "services" / "web").mkdir(parents=True)
    (stack / "services" / "web" / "app.py").write_text("print(1)")
    (stack / "services" / "requirements.txt").write_text("none")

    def run(script: str, *inputs: str, heard: list[str] | None = None) -> Path:
        web = Service(name="web", source=Source("tree", "services/web"), command=("x",), build=Build(("sh", "-c", script), inputs))
        one = site(web)
        found = built(one.topology, web, source_copy(one.topology, web, one.cache), one.cache, (heard or []).append)
        assert found
        return found[0]

    return run


def test_a_build_runs_where_its_inputs_stand_as_in_the_stack(build: Callable[..., Path]) -> None:
    out = build("cat ../requirements.txt app.py > $OUT/both", "services/requirements.txt")
    assert (out / "both").read_text() == "noneprint(1)"


def test_a_build_is_run_again_only_when_an_input_or_the_command_changed(build: Callable[..., Path], stack: Path) -> None:
    script, counter = "echo x >> {0}; cp app.py $OUT", stack / "count"
    command = script.format(counter)
    first = build(command, "services/requirements.txt")
    (stack / "services" / "web" / "app.py").write_text("print(2)")
    assert build(command, "services/requirements.txt") == first
    assert counter.read_text() == "x\n"
    (stack / "services" / "requirements.txt").write_text("some")
    assert build(command, "services/requirements.txt") != first
    build(command + "; true", "services/requirements.txt")
    assert counter.read_text() == "x\nx\nx\n"


def test_without_inputs_the_whole_source_is_the_input(build: Callable[..., Path], stack: Path) -> None:
    first = build("cp app.py $OUT")
    (stack / "services" / "web" / "app.py").write_text("print(2)")
    assert (build("cp app.py $OUT") / "app.py").read_text() == "print(2)"
    assert (first / "app.py").read_text() == "print(1)"


def test_a_build_that_fails_shows_its_last_lines_and_is_not_kept(build: Callable[..., Path], cache: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        build("for i in $(seq 40); do echo line $i; done; exit 3")
    assert "status 3" in caught.value.message
    assert "line 40" in caught.value.message
    assert "  line 10\n" not in caught.value.message
    log = next((cache / "builds").glob("*.log"))
    assert str(log) in caught.value.hint
    assert "line 1\n" in log.read_text()
    assert not [path for path in (cache / "builds").iterdir() if path.is_dir()]


def test_a_build_that_leaves_nothing_is_a_mistake(build: Callable[..., Path]) -> None:
    with pytest.raises(ResourceError, match="the build of web left nothing"):
        build("echo hi > out")


def test_a_build_that_cannot_start_says_so(site: MakeSite, stack: Path) -> None:
    web = Service(name="web", source=Source("tree", "."), command=("x",), build=Build(("no-such-tool",)))
    one = site(web)
    with pytest.raises(ResourceError, match="cannot start 'no-such-tool'"):
        built(one.topology, web, source_copy(one.topology, web, one.cache), one.cache, print)


def test_scripts_of_a_virtual_environment_name_the_place_where_the_node_sees_it(build: Callable[..., Path]) -> None:
    out = build('mkdir $OUT/bin; printf "#!$OUT/bin/python\\nimport x\\n" > $OUT/bin/tool; chmod 755 $OUT/bin/tool')
    assert (out / "bin" / "tool").read_text() == "#!/build/bin/python\nimport x\n"
    assert (out / "bin" / "tool").stat().st_mode & 0o100
