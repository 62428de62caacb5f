"""`envctl faults RUN`: what was asked of each fault of a run, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from envctl.cli.faults import faults


def test_of_a_run_it_tells_what_each_fault_did_and_that_it_is_gone(whole: Path) -> None:
    done = CliRunner().invoke(faults, [str(whole), "--output", "json"], catch_exceptions=False)
    loss, kill = json.loads(done.output)["faults"]
    assert (loss["id"], loss["measured"], loss["gone"], loss["heal_s"]) == ("packet-loss", "19.8 % of 4,210", True, 3.5)
    assert "loss 20 %" in loss["asked"]
    assert (kill["id"], kill["gone"], kill["heal_s"]) == ("node-kill", None, None)
    table = CliRunner().invoke(faults, [str(whole)], catch_exceptions=False).output
    assert "verified" in table
    assert "not looked for" in table
