from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.engines.base import Site
from envctl.engines.builds import built
from envctl.engines.sources import source_copy
from envctl.errors import ResourceError
from envctl.model.topology import Build, Service, Source
from envctl.waiting import until

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
    with pytest.raises(ResourceError, match=r"status 127: no-such-tool\n.*no-such-tool: not found"):
        built(one.topology, web, source_copy(one.topology, web, one.cache), one.cache, print)


HALF = "sleep 600 & echo $! > pid; echo half > $OUT/program; sync; mv pid started; wait"
BUILDS = """
import sys
from pathlib import Path
from envctl.engines.builds import built
from envctl.model.topology import Build, Service, Source, Topology
root = Path(sys.argv[1])
web = Service(name="web", source=Source("tree", "web"), command=("x",), build=Build(("sh", "-c", f"cd {root}; " + sys.argv[2])))
print(built(Topology("t", root / "topology.yaml", ("a",), {}), web, (root / "web", "same source"), root / "cache", lambda _: None)[0])
"""


def test_a_build_dies_with_whoever_is_killed_over_it_and_half_of_it_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    started, whole = tmp_path / "started", f"test -e started && echo whole > $OUT/program || {{ {HALF}; }}"
    command = [sys.executable, "-c", BUILDS, str(tmp_path), whole]
    killed = subprocess.Popen(command)
    assert until(started.exists, 30)
    pid = int(started.read_text())
    killed.kill()
    killed.wait()
    assert until(lambda: not alive(pid), 10)
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert (Path(again.stdout.strip()) / "program").read_text() == "whole\n"
    assert not [path for path in (tmp_path / "cache" / "builds").iterdir() if path.suffix in (".half", ".work")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while it is read
        return False


def test_what_a_build_leaves_running_ends_with_it(build: Callable[..., Path]) -> None:
    out = build("sleep 600 & echo $! > $OUT/pid")
    assert until(lambda: not alive(int((out / "pid").read_text())), 10)


def test_scripts_of_a_virtual_environment_name_the_place_where_the_node_sees_it(build: Callable[..., Path]) -> None:
    out = build('mkdir $OUT/bin; printf "#!$OUT/bin/python\\nimport x\\n" > $OUT/bin/tool; chmod 755 $OUT/bin/tool')
    assert (out / "bin" / "tool").read_text() == "#!/build/bin/python\nimport x\n"
    assert (out / "bin" / "tool").stat().st_mode & 0o100
