"""Who is left alone ends by itself: a run that nobody follows, a fault that nobody heals, an environment that nobody uses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from chaos_boundaries import begin
from chaos_site import CLI, HELPERS, Site, until

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]


def edges(site: Site) -> list[str]:
    lines = [json.loads(line) for line in site.events().splitlines(keepends=True) if line.endswith(b"\n")]
    return [line["edge"] for line in lines if line["kind"] == "fault" and line["edge"] not in ("detect", "during")]


def packet_tool(site: Site) -> tuple[str, dict[str, str]]:
    """The program `nft`, of the cache or of the machine, and the environment it needs."""
    kept = next((site.cache / "tools" / "nft").glob("*/tool.json"), None)
    if kept is None:
        return "nft", dict(os.environ)
    told = json.loads(kept.read_text())
    own = {name: str(value).replace("{home}", str(kept.parent)) for name, value in told["env"].items()}
    return str(kept.parent / told["programs"]["nft"]), {**os.environ, **own}


def rules(site: Site) -> str:
    """The packet rules of the database's node, as the kernel has them."""
    cell = next(each for each in site.processes() if b"\0envctl-cell\0" in each.text)
    node = next(each for each in site.processes() if b":db-0\0" in each.text and each.text.startswith(b"/bin/sh\0"))
    program, env = packet_tool(site)
    enter = ["nsenter", f"--user=/proc/{cell.pid}/ns/user", f"--net=/proc/{node.pid}/ns/net", "--preserve-credentials"]
    done = subprocess.run([*enter, program, "list", "ruleset"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_whose_command_was_killed_heals_its_fault_and_ends_by_itself(site: Site) -> None:
    before = site.take()
    command = begin(site, "the fault is held")
    site.kill(CLI, command)
    command.wait()
    assert until(lambda: not site.victims(HELPERS, command) or edges(site)[-1] in ("absent", "recover"), 40)
    assert until(lambda: b'"name":"run","edge":"end"' in site.events(), 40), site.events()[-2000:]
    assert edges(site)[-1] in ("absent", "recover")
    assert b"nobody follows it any more" in site.events()
    assert until(lambda: not any(b"envctl.runner" in each.text or b"envctl.replay" in each.text for each in site.processes()), 20)
    assert "peers" not in rules(site)
    run = site.run_directory()
    status, said = site.envctl("judge", str(run))
    assert status == 7, said
    assert site.envctl("down")[0] == 0
    assert site.left(before) == []


def test_a_fault_that_nobody_heals_expires(site: Site) -> None:
    before = site.take()
    command = begin(site, "the fault is applied")
    site.kill(CLI, command)
    site.kill(HELPERS, command)
    command.wait()
    assert "198.18" in rules(site), "the fault was not acting"
    assert until(lambda: "198.18" not in rules(site), 20, poll_s=0.3), rules(site)
    assert site.envctl("down")[0] == 0
    assert site.left(before) == []


def test_an_environment_ends_by_its_lease_and_gc_removes_the_rest(site: Site) -> None:
    before = site.take()
    status, said = site.envctl("up", "--full", "--ttl", "10s")
    assert status == 0, said
    assert until(lambda: not site.processes(), 60), [each.title for each in site.processes()]
    assert not site.environments()
    assert site.envctl("gc")[0] == 0
    assert site.left(before) == []


def test_what_a_killed_up_had_begun_ends_by_its_lease(site: Site) -> None:
    before = site.take()
    command = site.start("up", "--full", "--ttl", "10s")
    assert until(lambda: bool(site.nodes()), 60), command.text()
    site.kill(CLI, command)
    command.wait()
    assert until(lambda: not site.processes(), 60), [each.title for each in site.processes()]
    assert site.envctl("gc")[0] == 0
    assert site.left(before) == []


def test_an_intake_that_was_killed_is_started_again_once(site: Site) -> None:
    before = site.take()
    assert site.envctl("up", "--full")[0] == 0

    def intakes() -> list[int]:
        return [each.pid for each in site.processes() if b"envctl.telemetry.intake" in each.text]

    assert until(lambda: len(intakes()) == 1, 20)
    (first,) = intakes()
    with suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    assert until(lambda: len(intakes()) == 1 and intakes() != [first], 20)
    assert site.envctl("down")[0] == 0
    assert site.left(before) == []


def test_a_cell_that_was_killed_is_garbage(site: Site) -> None:
    before = site.take()
    assert site.envctl("up", "--full")[0] == 0
    (cell,) = (each for each in site.processes() if b"\0envctl-cell\0" in each.text)
    os.kill(cell.pid, signal.SIGKILL)
    status, said = site.envctl("gc")
    assert (status, "it died" in said) == (0, True), said
    assert site.left(before) == []
    assert not Path(site.project / ".envctl" / "state").exists()
