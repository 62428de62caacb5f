"""What tells of a fault, and what must hold while it acts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from envctl.errors import UsageError
from envctl.faults.base import Blast
from envctl.model.environment import Node
from envctl.model.event import Op, Sample
from envctl.model.scenario import Detect, FaultSpec, Scenario, Traffic
from envctl.runner import noticing
from envctl.runner.faulting import check_escalations
from envctl.runner.live import Live
from envctl.runner.noticing import Notice
from envctl.spec.conditions import parse_condition

S = 1_000_000_000
QUEUE, ALARM = parse_condition("value(queue) < 5"), parse_condition("value(queue) > 8")
KILL = FaultSpec("kill", "node-kill", 0.0, (), None, {})


class Scene:
    """A clock, a measure, and what a notice says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_s = 100.0
        self.said: dict[str, tuple[bool, str, dict[str, Any]]] = {}
        self.live = Live(lambda: round(self.at_s * S))
        monkeypatch.setattr(noticing.time, "monotonic", lambda: self.at_s)

    def notice(self, *, spec: FaultSpec = KILL, **fields: Any) -> Notice:
        scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), **fields)
        return Notice(spec, scenario, self.live, lambda: round(self.at_s * S), lambda edge, ok, words, detail: self.said.update({edge: (ok, words, detail)}))

    @property
    def now(self) -> int:
        return round(self.at_s * S)

    def goes(self, notice: Notice, value: float | None, seconds: float = 0.2) -> None:
        self.at_s += seconds
        self.live.sample(Sample(at_ns=round(self.at_s * S), measure="value", value=value, attrs={"name": "queue"}))
        notice._look()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.mark.parametrize(("fields", "by"), [
    ({"steady": (QUEUE,)}, QUEUE), ({"during": (QUEUE,)}, QUEUE), ({"stop": (ALARM,)}, ALARM),
    ({"steady": (QUEUE,), "detect": Detect(5.0, (ALARM,))}, ALARM),
])
def test_the_first_condition_that_comes_on_detects(scene: Scene, fields: dict[str, Any], by: Any) -> None:
    notice = scene.notice(**fields)
    scene.goes(notice, 1)
    notice.acts()
    scene.goes(notice, 2, 2.0)
    assert "detect" not in scene.said
    scene.goes(notice, 9, 1.0)
    ok, words, detail = scene.said["detect"]
    assert (ok, detail["by"], detail["seconds"]) == (True, by.text, pytest.approx(3.0))
    assert words == f"detected in 3.0 s: {by.text}"
    notice.over(stopped=False)
    assert scene.said["detect"][2]["seconds"] == pytest.approx(3.0)


def test_one_that_comes_on_too_late_is_not_in_time(scene: Scene) -> None:
    notice = scene.notice(detect=Detect(2.0, (ALARM,)))
    scene.goes(notice, 1)
    notice.acts()
    scene.goes(notice, 9, 3.0)
    assert scene.said["detect"][:2] == (False, "detected in 3.0 s, 2 s allowed: value(queue) > 8")


def test_an_alarm_that_was_on_before_tells_nothing_until_it_comes_on_again(scene: Scene) -> None:
    notice = scene.notice(stop=(ALARM,))
    scene.goes(notice, 9)
    notice.acts()
    scene.goes(notice, 9)
    assert "detect" not in scene.said
    scene.goes(notice, 1)
    scene.goes(notice, 9)
    assert scene.said["detect"][2]["by"] == ALARM.text


def test_what_nothing_told_of_is_said_with_its_reason(scene: Scene) -> None:
    quiet = scene.notice(steady=(QUEUE,))
    scene.goes(quiet, 1)
    quiet.acts()
    scene.goes(quiet, 1)
    quiet.over(stopped=False)
    assert scene.said["detect"] == (True, "not detected", {"seconds": None, "within_s": None, "unknown": [], "stopped": False})
    scene.goes(quiet, 9)
    deaf = scene.notice(detect=Detect(3.0, (ALARM,)))
    deaf.acts()
    deaf.over(stopped=False)
    assert scene.said["detect"][:2] == (False, "not detected: value(queue) > 8 held before it acted already")
    scene.goes(quiet, 1)
    blind = scene.notice(steady=(QUEUE,))
    blind.acts()
    for _ in range(7):
        scene.goes(blind, None, 1.0)
    blind.over(stopped=False)
    assert scene.said["detect"][2]["unknown"] == ["value(queue) < 5 could not be measured for 6.0 s"]


@pytest.mark.parametrize(("values", "ok", "words"), [
    ([1, 2], True, "tolerated"), ([1, 7, 1], False, "not tolerated: value(queue) < 5: it was 7 after 0.4 s"),
    ([None], None, "could not be measured meanwhile: value(queue) < 5"), ([1, *[None] * 30], None, "could not be measured meanwhile: value(queue) < 5"),
    ([1, *[None] * 10, 1], True, "tolerated"), ([7, *[None] * 30], False, "not tolerated: value(queue) < 5: it was 7 after 0.2 s"),
])
def test_what_must_hold_meanwhile_is_judged_over_all_of_it(scene: Scene, values: list[float | None], ok: bool | None, words: str) -> None:
    notice = scene.notice(spec=FaultSpec("kill", "node-kill", 0.0, (), None, {}, during=(QUEUE,)))
    scene.goes(notice, 9)  # before it acts anything may be
    notice.acts()
    for value in values:
        scene.goes(notice, value)
    notice.gone()
    scene.goes(notice, 9)  # so it may after it
    notice.over(stopped=False)
    assert scene.said["during"][:2] == (bool(ok), words)
    assert scene.said["during"][2]["conditions"][0]["ok"] is ok


@pytest.mark.parametrize(("hung", "after", "ok"), [(10, 0, False), (0, 0, True), (0, 30, True)])
def test_what_was_begun_under_a_fault_and_hangs_at_its_end_is_waited_for(scene: Scene, hung: int, after: int, ok: bool) -> None:
    during = parse_condition("success_rate(traffic) >= 80 %"), parse_condition("throughput(traffic) > 1 /s")
    notice, numbers = scene.notice(during=during), itertools.count()

    def operate(count: int, *, answered: bool) -> None:
        for number in itertools.islice(numbers, count):
            scene.live.operation(Op(at_ns=scene.now, op=number, process="c", type="invoke", f="buy", due_ns=scene.now))
            if answered:
                scene.live.operation(Op(at_ns=scene.now, op=number, process="c", type="ok", f="buy", value={}))

    notice.acts()
    operate(20, answered=True)
    scene.goes(notice, 1, 0.1)
    operate(hung, answered=False)
    scene.goes(notice, 1, 1.0)
    notice.gone()
    assert "during" not in scene.said
    scene.goes(notice, 1, 0.1)
    operate(100, answered=True)
    operate(after, answered=False)
    scene.goes(notice, 1, 1.8)
    assert "during" not in scene.said
    scene.goes(notice, 1, 0.2)
    assert scene.said["during"][:2] == (ok, "tolerated" if ok else "not tolerated: success_rate(traffic) >= 80 %: it was 66.67 % after 3.0 s")


def node(name: str) -> Node:
    return Node(name, name.rpartition("-")[0], "service", "a", "", "ready", 1, None, 1, None)


@pytest.mark.parametrize(("second", "refused"), [(("web-0",), True), (("web-1",), True), (("web-0", "web-1"), False)])
def test_a_step_that_reaches_no_further_is_refused_before_the_run(second: tuple[str, ...], refused: bool) -> None:
    def step(number: int) -> FaultSpec:
        return FaultSpec(f"f{number}", "partition", 0.0, (), 1.0, {}, line=8, escalation="e", step=number, steps=2)
    scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), faults=(step(1), step(2)))
    blasts = {"f1": Blast((node("web-0"),), ""), "f2": Blast(tuple(map(node, second)), "")}
    if not refused:
        check_escalations(scenario, blasts)
        return
    with pytest.raises(UsageError, match=r"s.yaml:8: f2: step 2 of the escalation hits .*, the one before it web-0"):
        check_escalations(scenario, blasts)
