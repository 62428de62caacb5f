"""A plain `pulumi` works on the state that envctl leaves, with the provider as a plug-in on PATH and no Python language host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stack_bench import Bench

from envctl.toolchain import lookup


@pytest.fixture
def pulumi(bench: Bench) -> Path:
    """A stack that names its backend, as the ones that envctl writes do, and a plug-in on PATH."""
    stack = bench.plan.topology.directory
    shipped = Path(__file__).parents[2] / "stacks" / "shop" / "Pulumi.yaml"
    (stack / "Pulumi.yaml").write_text(shipped.read_text())
    plugin = bench.root / "bin" / "pulumi-resource-envctl"
    plugin.parent.mkdir()
    plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "plugin_process.py"}" "$@"\n')
    plugin.chmod(0o755)
    return lookup.find("pulumi").programs["pulumi"]


def call(bench: Bench, program: Path, *arguments: str) -> str:
    env = {
        "PATH": f"{bench.root / 'bin'}:{os.environ['PATH']}", "HOME": str(bench.root), "PULUMI_HOME": str(bench.root / ".pulumi"), "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true", "ENVCTL_CACHE": str(bench.ground.cache),
    }
    argv = [str(program), *arguments, "--non-interactive", "--color=never", "--stack", bench.plan.env_id]
    done = subprocess.run(argv, cwd=bench.plan.topology.directory, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_stack_lists_the_resources(bench: Bench, pulumi: Path) -> None:
    bench.up()
    assert "api-0" in call(bench, pulumi, "stack")


def test_refresh_tells_the_truth_about_a_node_that_died(bench: Bench, pulumi: Path) -> None:
    bench.up()
    bench.kill("web-0")
    assert "1 deleted" in call(bench, pulumi, "refresh", "--yes", "--skip-preview")
    names = [each["urn"].rpartition("::")[2] for each in bench.state.resources()]
    assert "api-0" in names
    assert "web-0" not in names
    assert bench.up().started == ("web-0",)


def test_destroy_ends_the_environment(bench: Bench, pulumi: Path) -> None:
    bench.up()
    call(bench, pulumi, "destroy", "--yes", "--skip-preview")
    assert bench.ground.environments() == ()
    assert not any(line.startswith("stop") for line in bench.world.journal()), "ending the environment ends its nodes"
    assert bench.state.resources() == []


def test_export_shows_no_secret_and_no_pending_operation(bench: Bench, pulumi: Path) -> None:
    bench.up()
    exported = json.loads(call(bench, pulumi, "stack", "export"))["deployment"]
    assert not exported.get("pending_operations")
