"""What the gate makes of a run: faults, conditions, the run's own end, waivers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from envctl import gate, plugins
from envctl.errors import SpecError, UsageError
from envctl.model.event import FaultEdge, Log, Observation, Op, Step
from envctl.model.project import Gate, Waiver
from envctl.model.scenario import CheckSpec, Condition, Detect, FaultSpec, Scenario, Slo, Stream, Traffic
from envctl.model.verdict import Evidence, Finding, Verdict
from envctl.record import EVENTS, Record, RecordWriter, RunManifest
from envctl.spec import load_project

MANIFEST = RunManifest(id="r1", scenario="s", stack="shop", env_id="e", commit="c", branch="b", rng_seed=4217, started_at=0.0,
                       clock_ns=0, epoch_ns=0, scenario_file="scenarios/s.yaml")
STREAMS = {
    "accepted": Stream("accepted", operation="place_order", fields={"id": "response.order_id"}),
    "published": Stream("published", topic="orders.placed", fields={"id": "value.order_id"}),
}
CONDITION = {"text": "p95(traffic) < 400 ms", "value": 0.1, "ok": True}
SCENARIO = Scenario(
    "s", Path("scenarios/s.yaml"), Traffic(Path("t.jsonl"), "gateway", None, None), streams=STREAMS,
    steady=(Condition("p95(traffic) < 400 ms", "p95", "traffic", "<", 0.4),),
    faults=(FaultSpec("kill", "node-kill", 5.0, (), None, {}),),
    checks=(CheckSpec("no-loss", "no-loss", {"from": "accepted", "to": "published"}),), slo=Slo(0.9),
)
STAGES = ("probe", "journal", "apply", "verify", "hold", "heal", "absent", "recover")


def edge(stage, *, ok=True, summary="", **detail):
    return FaultEdge(at_ns=5, id="kill", fault="node-kill", edge=stage, ok=ok, summary=summary, detail=detail)


def good():
    """A whole run that passes, as named parts that a test may change."""
    parts = {
        "begin": [Step(at_ns=0, name="run", edge="begin"), Step(at_ns=0, name="traffic", edge="begin")],
        "ops": [event for n in range(20) for event in (
            Op(at_ns=n, op=n, process="c", type="invoke", f="place_order", due_ns=n),
            Op(at_ns=n + 1, op=n, process="c", type="ok", f="place_order", value={"body": {"order_id": n}}))],
        "before": [Step(at_ns=4, name="steady", edge="end", ok=True, detail={"phase": "before", "conditions": [CONDITION]})],
        "after": [Step(at_ns=30, name="steady", edge="end", ok=True, detail={"phase": "after", "conditions": [CONDITION]})],
        "traffic": [Step(at_ns=31, name="traffic", edge="end", ok=True, detail={"planned": 20})],
        "observe": [Step(at_ns=50, name="observe", edge="begin", detail={"stream": "published"}),
                    *(Observation(at_ns=n, stream="published", id=str(n)) for n in range(20)),
                    Step(at_ns=51, name="observe", edge="end", ok=True, detail={"stream": "published"})],
    }
    return parts | {stage: [edge(stage)] for stage in STAGES} | {
        "logs": [], "end": [Step(at_ns=60, name="run", edge="end", ok=True)]}


def judged(tmp_path, parts, scenario=SCENARIO, manifest=MANIFEST, **options):
    manifest.save(tmp_path)
    writer = RecordWriter(tmp_path / EVENTS)
    for events in parts.values():
        for event in events:
            writer.write(event)
    writer.close()
    return gate.judge(Record.load(tmp_path, scenario), **options)


def bad(verdict):
    return {finding.id: (finding.outcome, finding.title) for finding in verdict.findings if finding.outcome != "pass"}


def test_a_run_in_which_everything_held_passes(tmp_path):
    verdict = judged(tmp_path, good())
    assert (verdict.outcome, bad(verdict)) == ("pass", {})
    assert [finding.id for finding in verdict.findings] == [
        "no-loss", "slo:availability", "fault:kill", "steady:before", "steady:after"]
    assert gate.explain(verdict) == ["PASS    1 check, 1 objective, 1 fault"]


@pytest.mark.parametrize(
    ("stage", "events", "outcome", "words"),
    [
        ("probe", [edge("probe", ok=False, summary="no node")], "inconclusive", "it was refused: no node"),
        ("apply", [edge("apply", ok=False, summary="nft failed")], "inconclusive", "could not be applied: nft failed"),
        ("verify", [edge("verify", ok=False, summary="0 % of 1,000")], "inconclusive", "could not be shown: 0 % of 1,000"),
        ("hold", [edge("hold", ok=False, summary="0 %")], "inconclusive", "did not last"),
        ("heal", [edge("heal", ok=False, summary="refused")], "fail", "could not be healed"),
        ("absent", [edge("absent", ok=False, summary="18 %")], "fail", "could not be healed: absent: 18 %"),
        ("recover", [edge("recover", ok=False, summary="not recovered: p95", conditions=[CONDITION | {"ok": False, "value": 0.5}])],
         "fail", "did not recover in time: not recovered: p95"),
        ("recover", [edge("recover", ok=False, summary="could not be measured", conditions=[CONDITION | {"ok": None, "value": None}])],
         "inconclusive", "could not be measured"),
        ("recover", [edge("recover", ok=False, summary="could not be measured", conditions=[])], "inconclusive", "could not be measured"),
        ("verify", [], "inconclusive", "nothing is recorded of verify"),
        ("recover", [], "inconclusive", "nothing is recorded of a recovery"),
    ],
)
def test_each_stage_of_a_fault_counts(tmp_path, stage, events, outcome, words):
    verdict = judged(tmp_path, good() | {stage: events})
    assert verdict.outcome == outcome
    assert bad(verdict)["fault:kill"][0] == outcome
    assert words in bad(verdict)["fault:kill"][1]


def test_a_fault_whose_time_never_came_is_inconclusive(tmp_path):
    verdict = judged(tmp_path, good() | {stage: [] for stage in STAGES})
    assert bad(verdict) == {"fault:kill": ("inconclusive", "its time never came")}


@pytest.mark.parametrize(("begin", "end", "met"), [(0, 4, False), (7, 9, False), (4, 6, True), (0, 9, True), (0, 5, True)])
def test_a_fault_that_no_operation_met_shows_nothing(tmp_path, begin, end, met):
    ops = [event for n in range(20) for event in (
        Op(at_ns=begin, op=n, process="c", type="invoke", f="place_order", due_ns=begin),
        Op(at_ns=end, op=n, process="c", type="ok", f="place_order", value={"body": {"order_id": n}}))]
    window = {stage: [replace(edge(stage, summary="exit 137" if stage == "verify" else ""), at_ns=6 if stage in ("absent", "recover") else 5)]
              for stage in STAGES}
    found = bad(judged(tmp_path, good() | window | {"ops": ops}))
    assert found == ({} if met else {"fault:kill": ("inconclusive", "no operation met it: exit 137")})


def test_an_effect_that_was_not_shown_does_not_hide_a_loss(tmp_path):
    parts = good() | {"verify": [edge("verify", ok=False)]}
    del parts["observe"][3]
    verdict = judged(tmp_path, parts)
    assert verdict.outcome == "fail"
    assert list(bad(verdict)) == ["no-loss", "fault:kill"]


@pytest.mark.parametrize(
    ("phase", "ok", "outcome"), [("before", False, "inconclusive"), ("after", False, "fail"), ("after", None, "inconclusive")])
def test_an_unmet_steady_state_counts_by_when_it_was(tmp_path, phase, ok, outcome):
    step = Step(at_ns=4, name="steady", edge="end", ok=False, detail={"phase": phase, "conditions": [CONDITION | {"ok": ok}]})
    verdict = judged(tmp_path, good() | {phase: [step]})
    assert {id: found[0] for id, found in bad(verdict).items()} == {f"steady:{phase}": outcome}
    assert "p95(traffic) < 400 ms: it was 100 ms" in gate.explain(verdict)[1]


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "inconclusive"), (1.5, "fail")])
def test_a_latency_at_the_end_that_a_busy_machine_may_explain_is_inconclusive(tmp_path, value, outcome):
    step = Step(at_ns=4, name="steady", edge="end", ok=False,
                detail={"phase": "after", "conditions": [CONDITION | {"ok": False, "value": value}]})
    late = Log(at_ns=7, level="info", message="replay ended", detail={"late_p99_ms": 60.0})
    found = bad(judged(tmp_path, good() | {"after": [step], "logs": [late]}))
    assert {id: each[0] for id, each in found.items()} == {"steady:after": outcome}
    assert ("too busy" in found["steady:after"][1]) is (outcome == "inconclusive")


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "inconclusive"), (1.5, "fail")])
def test_a_recovery_that_a_busy_machine_may_have_held_up_is_inconclusive(tmp_path, value, outcome):
    lag = {"text": "lag(payments) < 200", "value": 250.0, "ok": False}
    late = Log(at_ns=7, level="info", message="replay ended", detail={"late_p99_ms": 60.0})
    for conditions, expected in (([CONDITION | {"ok": False, "value": value}], outcome), ([CONDITION | {"ok": False, "value": value}, lag], "fail")):
        recover = edge("recover", ok=False, summary="not recovered", conditions=conditions)
        found = bad(judged(tmp_path, good() | {"recover": [recover], "logs": [late]}))["fault:kill"]
        assert found[0] == expected
        assert ("too busy" in found[1]) is (expected == "inconclusive")
        (tmp_path / EVENTS).unlink()


def test_a_steady_state_nobody_looked_at_is_inconclusive(tmp_path):
    assert bad(judged(tmp_path, good() | {"after": []}))["steady:after"][0] == "inconclusive"


def test_a_tripped_stop_condition_fails_and_is_named(tmp_path):
    log = Log(at_ns=7, level="warning", message="stopped", detail={"stop": "success_rate(traffic) < 50 %", "value": 0.3})
    end = Step(at_ns=60, name="run", edge="end", ok=False, detail={"reason": "stop condition: success_rate"})
    verdict = judged(tmp_path, good() | {"logs": [log], "end": [end]})
    assert bad(verdict) == {"run:stop": ("fail", "a stop condition ended the run: success_rate(traffic) < 50 %")}


def test_a_run_that_was_cut_short_or_cancelled_is_inconclusive(tmp_path):
    assert bad(judged(tmp_path, good() | {"end": []}))["run:end"][0] == "inconclusive"


def test_a_cancelled_run_is_inconclusive_and_says_so(tmp_path):
    end = Step(at_ns=60, name="run", edge="end", ok=False, detail={"reason": "cancelled"})
    assert bad(judged(tmp_path, good() | {"end": [end]})) == {"run:end": ("inconclusive", "the run ended early: cancelled")}


@pytest.mark.parametrize("change", [{"traffic": [Step(at_ns=31, name="traffic", edge="end", ok=True, detail={"planned": 500})]},
                                    {"traffic": [Step(at_ns=31, name="traffic", edge="end", ok=False, detail={"error": "died"})]}])
def test_a_replay_that_did_not_do_its_part_is_inconclusive(tmp_path, change):
    assert bad(judged(tmp_path, good() | change))["run:operations"][0] == "inconclusive"


WHY = "operations were never sent: what they refer to was never answered"


def unsent(count, reason):
    return [event for n in range(1000) for event in (
        Op(at_ns=n, op=n, process="c", type="invoke", f="place_order", due_ns=n),
        Op(at_ns=n + 1, op=n, process="c", type="fail", f="place_order", value={"sent": False, "error": reason}) if 20 <= n < 20 + count
        else Op(at_ns=n + 1, op=n, process="c", type="ok", f="place_order", value={"body": {"order_id": n if n < 20 else n % 20}}))]


@pytest.mark.parametrize(("count", "outcome"), [(10, "pass"), (11, "inconclusive"), (980, "inconclusive")])
def test_a_replay_that_could_not_send_its_operations_is_inconclusive(tmp_path, count, outcome):
    parts = good() | {"ops": unsent(count, "browse of key 'c' has not succeeded"),
                      "traffic": [Step(at_ns=31, name="traffic", edge="end", ok=True, detail={"planned": 1000})]}
    verdict = judged(tmp_path, parts)
    assert verdict.outcome == outcome
    if outcome == "inconclusive":
        title = f"only {1000 - count} of 1,000 operations were sent: {count} {WHY}"
        assert bad(verdict) == {"run:operations": ("inconclusive", title)}


def test_operations_whose_turn_never_came_are_the_systems_doing(tmp_path):
    parts = good() | {"ops": unsent(980, "the replay ended before its turn came")}
    assert {id: found[0] for id, found in bad(judged(tmp_path, parts)).items()} == {"slo:availability": "fail"}


def test_nothing_but_unsent_operations_is_no_replay(tmp_path):
    parts = good() | {"ops": unsent(20, "browse of key 'c' has not succeeded")[40:80]}
    assert bad(judged(tmp_path, parts))["run:operations"] == ("inconclusive", f"none of 20 operations was sent: 20 {WHY}")


def test_no_operations_are_never_a_pass(tmp_path):
    assert judged(tmp_path, good() | {"ops": []}, replace(SCENARIO, checks=(), slo=Slo())).outcome == "inconclusive"


def test_a_scenario_without_checks_is_never_a_pass(tmp_path):
    verdict = judged(tmp_path, good(), replace(SCENARIO, checks=(), slo=Slo()))
    assert list(bad(verdict)) == ["run:checks"]
    assert verdict.fixed == ("run:checks",)
    assert verdict.outcome == "inconclusive"


def test_a_check_that_raises_is_inconclusive_with_its_traceback(tmp_path, monkeypatch):
    class Broken:
        @classmethod
        def waits_s(cls, _):
            return 0.0

        @classmethod
        def judge(cls, *_):
            raise ZeroDivisionError("boom")

    monkeypatch.setattr(plugins, "load", lambda *_: Broken)
    (finding, *_) = judged(tmp_path, good()).findings
    assert (finding.outcome, finding.title) == ("inconclusive", "the check gave up: ZeroDivisionError: boom")
    assert "Traceback" in finding.evidence[0].summary


@pytest.mark.parametrize(("policy", "outcome", "unverified"), [("warn", "pass", ("fraud",)), ("fail", "fail", ("fraud",)), ("ignore", "pass", ())])
def test_unverified_stubs_count_by_policy(tmp_path, policy, outcome, unverified):
    verdict = judged(tmp_path, good(), manifest=replace(MANIFEST, stubbed=("fraud",)), gate=Gate(stubs_unverified=policy))
    assert (verdict.outcome, verdict.unverified) == (outcome, unverified)


def test_objectives_can_be_left_out(tmp_path):
    verdict = judged(tmp_path, good(), gate=Gate(slo="none"))
    assert not [finding for finding in verdict.findings if finding.group == "slo"]


def test_another_scenario_judges_the_same_record(tmp_path):
    judged(tmp_path, good())
    other = replace(SCENARIO, checks=(CheckSpec("twice", "no-duplicates", {"in": "published"}),))
    assert gate.judge(Record.load(tmp_path, SCENARIO), scenario=other).findings[0].id == "twice"


WAIVER = Waiver("s", "no-loss", "team-checkout", "known, see the tracker", date(9999, 1, 1))


def test_a_waived_finding_is_shown_and_does_not_count(tmp_path):
    parts = good()
    del parts["observe"][3]
    verdict = judged(tmp_path, parts, gate=Gate(waivers=(WAIVER,)))
    assert (verdict.outcome, verdict.notes) == ("pass", ())
    assert verdict.findings[-1].waived == "team-checkout until 9999-01-01: known, see the tracker"
    told = gate.explain(verdict)
    assert told[0] == "PASS    1 objective, 1 fault"
    assert any("waived: no-loss: 1 of 20 accepted never reached published" in line for line in told)


def test_a_waiver_of_another_scenario_waives_nothing(tmp_path):
    parts = good()
    del parts["observe"][3]
    verdict = judged(tmp_path, parts, gate=Gate(waivers=(replace(WAIVER, scenario="other"),)))
    assert (verdict.outcome, verdict.notes) == ("fail", ())


@pytest.mark.parametrize("finding", ["no-loss", "no-los"])
def test_a_waiver_that_waived_nothing_is_told(tmp_path, finding):
    verdict = judged(tmp_path, good(), gate=Gate(waivers=(replace(WAIVER, finding=finding),)))
    assert (verdict.outcome, verdict.notes) == ("pass", (f"the waiver of {finding} by team-checkout waived nothing",))


def test_a_project_names_its_waivers_and_an_expired_or_incomplete_one_is_an_error(tmp_path):
    for file in ("stacks/shop/topology.yaml", "scenarios/s.yaml"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()

    def load(waiver):
        text = f"envctl: project/v1\nstack: stacks/shop\ngate:\n  waivers:\n    - {waiver}\n"
        (tmp_path / "envctl.yaml").write_text(text)
        return load_project(tmp_path).gate.waivers

    whole = "{scenario: s, finding: no-loss, owner: me, reason: known, expires: 9999-01-31}"
    assert load(whole) == (Waiver("s", "no-loss", "me", "known", date(9999, 1, 31)),)
    for before, after, words in (("9999-01-31", "2020-01-31", "expired"), ("reason: known, ", "", "reason"), ("scenario: s, ", "", "scenario"),
                                 ("9999-01-31", "9999-13-31", "9999-13-31"), ("scenario: s,", "scenario: t,", "no scenario is called 't'")):
        with pytest.raises(SpecError, match=words) as refused:
            load(whole.replace(before, after))
        assert refused.value.problems[0].line == 5


def test_a_verdict_comes_back_as_it_was_saved(tmp_path):
    evidence = Evidence("lost", ("o1",), 5, ("kill",), ("ab",), {"key": "k"})
    finding = Finding("no-loss", "no-loss", "fail", "1 lost", "check", (evidence,), 1, {"lost": 1}, "me")
    verdict = Verdict("fail", (finding,), ("fraud",), ("a note",), "envctl run s")
    gate.save_verdict(tmp_path, verdict)
    assert gate.load_verdict(tmp_path) == verdict


@pytest.mark.parametrize("text", [None, "{", '{"format": "verdict/v9"}', '{"format": "verdict/v1"}'])
def test_a_verdict_that_can_not_be_read_is_an_error_that_says_so(tmp_path, text):
    if text is not None:
        (tmp_path / "verdict.json").write_text(text)
    with pytest.raises(UsageError):
        gate.load_verdict(tmp_path)


def test_the_reason_comes_first_and_the_command_that_reproduces_it_last(tmp_path):
    parts = good() | {"verify": [edge("verify", ok=False, summary="0 %")]}
    del parts["observe"][3]
    lines = gate.explain(judged(tmp_path, parts))
    assert lines[0] == "FAIL    no-loss: 1 of 20 accepted never reached published"
    assert lines[1].startswith("          2 accepted 0.00 s, never in published")
    assert "INCONCLUSIVE fault:kill: its effect could not be shown: 0 %" in lines
    assert lines[-1] == "        reproduce: envctl run scenarios/s.yaml --rng-seed 4217"


def test_without_events_no_check_is_asked_because_the_first_one_may_just_be_written(tmp_path, monkeypatch):
    MANIFEST.save(tmp_path)
    monkeypatch.setattr(gate, "finding_of", lambda *_: pytest.fail("a check was asked"))
    with pytest.raises(UsageError, match="is missing"):
        gate.judge(Record.load(tmp_path, SCENARIO))


DURING = replace(SCENARIO, during=(Condition("success_rate(traffic) >= 80 %", "success_rate", "traffic", ">=", 0.8),))
TOLERANCE = {"text": "success_rate(traffic) >= 80 %", "value": 0.7}


@pytest.mark.parametrize(("ok", "outcome"), [(True, None), (False, "fail"), (None, "inconclusive")])
def test_what_had_to_hold_meanwhile_counts(tmp_path, ok, outcome):
    during = edge("during", ok=bool(ok), summary="as it was", conditions=[TOLERANCE | {"ok": ok, "seconds": 1.0}])
    found = bad(judged(tmp_path, good() | {"during": [during]}, DURING))
    assert found == ({} if outcome is None else {"during:kill": (outcome, "as it was")})


def test_what_had_to_hold_meanwhile_and_was_not_looked_at_is_inconclusive(tmp_path):
    assert bad(judged(tmp_path, good(), DURING))["during:kill"][0] == "inconclusive"


NOTICED = {"seconds": 3.0, "by": "p95(traffic) < 400 ms"}
UNNOTICED = {"seconds": None, "unknown": [], "stopped": False}


@pytest.mark.parametrize(("within_s", "detail", "outcome", "words"), [
    (5.0, NOTICED, None, ""), (2.0, NOTICED, "fail", "detected in 3.0 s, 2 s allowed: p95(traffic) < 400 ms"),
    (5.0, UNNOTICED, "fail", "not detected, 5 s allowed"), (5.0, UNNOTICED | {"unknown": ["lag(x) < 2"]}, "inconclusive", "5 s allowed"),
    (5.0, UNNOTICED | {"stopped": True}, "inconclusive", "the run was stopped before it was detected"), (5.0, None, "inconclusive", "nothing is recorded"),
])
def test_a_fault_that_has_to_be_noticed_is_judged_by_when_it_was(tmp_path, within_s, detail, outcome, words):
    edges = [] if detail is None else [edge("detect", ok=True, summary="not detected", **detail)]
    found = bad(judged(tmp_path, good() | {"detect": edges}, replace(SCENARIO, detect=Detect(within_s))))
    (tmp_path / EVENTS).unlink()
    overall = bad(judged(tmp_path, good() | {"detect": edges}, replace(SCENARIO, slo=replace(SCENARIO.slo, detect_s=within_s))))
    if outcome is None:
        assert (found, overall) == ({}, {})
        return
    assert found["detect:kill"][0] == overall["slo:time_to_detect"][0] == outcome
    assert words in found["detect:kill"][1]
    assert list(found) == ["detect:kill"]


def test_a_fault_that_did_not_act_can_not_be_detected(tmp_path):
    parts = good() | {"verify": [edge("verify", ok=False)], "detect": [edge("detect", **NOTICED)]}
    assert bad(judged(tmp_path, parts, replace(SCENARIO, detect=Detect(5.0))))["detect:kill"][0] == "inconclusive"


@pytest.mark.parametrize(("recover", "outcome"), [
    (edge("recover", seconds=1.5), None), (edge("recover", seconds=2.5), "fail"),
    (edge("recover", ok=False, summary="not recovered", seconds=9.0, conditions=[CONDITION | {"ok": False, "value": 0.5}]), "fail"),
    (edge("recover", ok=False, summary="unknown", seconds=9.0, conditions=[CONDITION | {"ok": None, "value": None}]), "inconclusive"),
])
def test_the_time_to_recover_is_an_objective_over_all_faults(tmp_path, recover, outcome):
    scenario = replace(SCENARIO, slo=replace(SCENARIO.slo, recover_s=2.0))
    assert bad(judged(tmp_path, good() | {"recover": [recover]}, scenario)).get("slo:time_to_recover", (None,))[0] == outcome
    (tmp_path / EVENTS).unlink()
    unasked = judged(tmp_path, good() | {"recover": [recover]}, scenario, gate=Gate(slo="none"))
    assert "slo:time_to_recover" not in bad(unasked)


GROWING = replace(SCENARIO, faults=tuple(
    FaultSpec(id, "node-kill", 5.0, (), None, {}, escalation="growing", step=step, steps=3) for step, id in enumerate(("kill", "two", "three"), 1)))


def test_an_escalation_whose_steps_were_all_survived_passes(tmp_path):
    steps = {f"{id}-{stage}": [replace(edge(stage), id=id)] for id in ("two", "three") for stage in STAGES}
    verdict = judged(tmp_path, good() | steps, GROWING)
    assert next(each.title for each in verdict.findings if each.id == "escalation:growing") == "all 3 steps were survived"
    assert verdict.outcome == "pass"


@pytest.mark.parametrize(("broken", "outcome", "words"), [
    ({"recover": [edge("recover", ok=False, summary="not recovered", conditions=[CONDITION | {"ok": False, "value": 0.5}])]}, "fail",
     "it broke at step 1 of 3 (kill): the system did not recover in time: not recovered; no step was survived"),
    ({"verify": [edge("verify", ok=False, summary="no effect")]}, "inconclusive", "it broke at step 1 of 3 (kill): its effect could not be shown"),
    ({"during": [edge("during", ok=False, summary="not tolerated", conditions=[TOLERANCE | {"ok": False}])]}, "fail", "it broke at step 1 of 3 (kill): not tolerated"),
])
def test_an_escalation_tells_at_which_step_it_broke(tmp_path, broken, outcome, words):
    held_back = [Log(at_ns=7, level="warning", message=f"{id} was not started: {before} was not survived", detail={"not_started": id})
                 for before, id in (("kill", "two"), ("two", "three"))]
    found = bad(judged(tmp_path, good() | broken | {"logs": held_back}, GROWING))
    assert found["escalation:growing"][0] == outcome
    assert found["escalation:growing"][1].startswith(words)
    assert found["fault:three"] == ("inconclusive", "not started: two was not survived")
