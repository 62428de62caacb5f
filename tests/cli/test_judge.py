"""`envctl judge` on a recorded run, with no environment and no project around it."""

from __future__ import annotations

import json

import pytest

from envctl.cli.main import main
from envctl.model.event import Observation, Op, Step
from envctl.record import EVENTS, RecordWriter, RunManifest

SCENARIO = """\
envctl: scenario/v1
name: s
takes: [gateway]
traffic: {file: traffic/elsewhere.jsonl, to: gateway}
observe:
  accepted: {operation: place_order, id: response.order_id}
  published: {topic: orders.placed, id: value.order_id}
checks:
  - CHECK
"""
LOSS, DUPLICATES = "no-loss: {from: accepted, to: published}", "no-duplicates: {in: published}"


@pytest.fixture
def run(tmp_path):
    """A run of three orders; `published` says which of them are in the topic."""

    def write(*published):
        directory = tmp_path / "run"
        (directory / "inputs").mkdir(parents=True)
        RunManifest(id="r", scenario="s", stack="shop", env_id="e", commit="c", branch="b", rng_seed=3, started_at=0.0, clock_ns=0,
                    epoch_ns=0, scenario_file="scenarios/s.yaml").save(directory)
        (directory / "inputs" / "scenario.yaml").write_text(SCENARIO.replace("CHECK", LOSS))
        (directory / "inputs" / "traffic.jsonl").write_text('{"at": 0, "op": "place_order", "http": "POST /orders"}\n')
        writer = RecordWriter(directory / EVENTS)
        for edge in ("run", "traffic"):
            writer.write(Step(at_ns=0, name=edge, edge="begin"))
        for n in range(3):
            writer.write(Op(at_ns=n, op=n, process="c", type="invoke", f="place_order", due_ns=n))
            writer.write(Op(at_ns=n, op=n, process="c", type="ok", f="place_order", value={"status": 201, "body": {"order_id": f"o{n}"}}))
        writer.write(Step(at_ns=5, name="observe", edge="begin", detail={"stream": "published"}))
        for id in published:
            writer.write(Observation(at_ns=4, stream="published", id=id, source={"topic": "t", "partition": 0, "offset": 0}))
        writer.write(Step(at_ns=6, name="observe", edge="end", ok=True, detail={"stream": "published"}))
        writer.write(Step(at_ns=7, name="run", edge="end", ok=True))
        writer.close()
        return directory

    return write


def judged(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["judge", *map(str, arguments)])
    return ended.value.code


def test_a_run_that_held_exits_0_and_the_verdict_is_saved(run, capsys):
    directory = run("o0", "o1", "o2")
    assert judged(directory) == 0
    assert capsys.readouterr().out.startswith("PASS")
    assert json.loads((directory / "verdict.json").read_text())["outcome"] == "pass"


def test_a_loss_exits_5_and_says_what_was_lost(run, capsys):
    assert judged(run("o0", "o2")) == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAIL    no-loss: 1 of 3 accepted never reached published"
    assert lines[-1] == "        reproduce: envctl run scenarios/s.yaml --rng-seed 3"


def test_what_a_service_said_can_not_steer_the_terminal_or_the_ci_system(run, capsys):
    evil = "\x1b[2J\u202e\n::stop-commands::x\nPASS    1 check"
    directory = run("o0", "o1")
    events = (directory / EVENTS).read_text()
    (directory / EVENTS).write_text(events.replace('"o2"', json.dumps(evil)))
    assert judged(directory) == 5
    out = capsys.readouterr().out
    assert r"\x1b[2J\u202e" in out
    assert not set(out) & set("\x1b\u202e")
    assert not [line for line in out.splitlines() if line.lstrip().startswith("::") or line.startswith("PASS")]


def test_an_empty_record_exits_7(run, tmp_path, capsys):
    directory = run()
    (directory / EVENTS).write_text("")
    assert judged(directory) == 7
    assert capsys.readouterr().out.startswith("INCONCLUSIVE")


def test_another_scenario_judges_the_same_run_again(run, tmp_path):
    directory = run("o0", "o2")
    (tmp_path / "traffic").mkdir()
    (tmp_path / "traffic" / "elsewhere.jsonl").write_text((directory / "inputs" / "traffic.jsonl").read_text())
    other = tmp_path / "other.yaml"
    other.write_text(SCENARIO.replace("name: s", "name: other").replace("CHECK", DUPLICATES))
    assert judged(directory) == 5
    own = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    assert {"verdict.json", "report.html"} <= set(own)
    assert judged(directory, "--scenario", other) == 0
    assert json.loads((directory / "verdict.other.json").read_text())["outcome"] == "pass"
    assert {name: (directory / name).read_bytes() for name in own} == own


def test_json_is_the_versioned_verdict_and_nothing_else(run, capsys):
    assert judged(run("o0"), "--output", "json") == 5
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["format"], verdict["outcome"], verdict["findings"][0]["total"]) == ("verdict/v1", "fail", 2)


def test_what_is_not_a_run_is_a_usage_error(tmp_path, capsys):
    assert judged(tmp_path) == 2
    assert "holds no run" in capsys.readouterr().err
