"""The queue model: planted anomalies, what is none, and 10,000 histories against the definitions as they stand."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import pytest

from envctl.cli.main import main
from envctl.consistency.queue import ANOMALIES, PROPERTY, anomalies, misfit
from envctl.model.history import History, Operation

HISTORIES = 10_000


def history(*said):
    """`(process, f, key or keys, value, told, outcome)`, one after the other; what is left out is `ok`."""
    operations = []
    for n, (process, f, key, asked, told, *outcome) in enumerate(said):
        kind = outcome[0] if outcome else "ok"
        operations.append(Operation(n, process, f, key, asked, told if kind == "ok" else None, kind, 2 * n, 2 * n + 1 if kind != "info" else None))
    assert not any(map(misfit, operations))
    return History(operations)


def send(value, offset=None, *outcome, key="p0"):
    return ("a", "send", key, value, [offset, value], *outcome)


def poll(*messages, process="b", key="p0"):
    return (process, "poll", None, None, {key: [list(each) for each in messages]})


def move(f, *keys, process="b"):
    return (process, f, None, list(keys), None)


def names(*said):
    return Counter(each.name for each in anomalies(history(*said)))


GOOD = (send(1, 0), send(2, 2), send(3, None, "info"), send(4, 5), send(5, None, "fail"), poll((0, 1), (2, 2)), poll((3, 3)), poll((5, 4)))


def test_a_log_with_gaps_and_an_unknown_send_that_took_effect_passes():
    (found,) = PROPERTY.judge(history(*GOOD), "log", 1)
    assert (found.outcome, found.title) == ("pass", "5 sent and 4 polled messages are those of a log")


@pytest.mark.parametrize(("name", "planted"), [
    ("lost-write", [send(9, 4)]),
    ("aborted-read", [poll((6, 5), process="c")]),
    ("inconsistent-offsets", [send(9, 6), poll((6, 9), process="c"), poll((6, 8), process="d")]),
    ("duplicate", [poll((7, 1), process="c")]),
    ("poll-skip", [poll((0, 1), (3, 3), process="c")]),
    ("nonmonotonic-poll", [poll((0, 1))]),
    ("nonmonotonic-poll", [poll((5, 4))]),
    ("unseen", [send(9, 6)]),
    ("unseen", [send(9)]),
])
def test_each_anomaly_is_found_in_a_good_history_and_named(name, planted):
    found = names(*GOOD, *planted)
    assert found[name] == 1
    assert set(found) <= {name, *(("poll-skip",) if name == "lost-write" else ())}


def test_what_was_lost_is_shown_with_who_got_further():
    (found,) = PROPERTY.judge(history(send(1, 0), send(2, 1), poll((1, 2))), "log", 1)
    assert found.evidence[0].summary == (
        "lost-write: key p0: 1 was acknowledged at 0 (operation 0) and never polled, though operation 2 polled 2 at 1")
    assert (found.evidence[0].ids, found.stats["anomalies"]) == (("0", "2"), {"lost-write": 1})


@pytest.mark.parametrize("planted", [
    [move("assign", "p0"), poll((6, 9)), send(9, 6)],  # goes on where it was
    [move("assign", "p1"), move("assign", "p0"), poll((0, 1))],  # it had let go of it
    [move("subscribe", "p0"), poll((0, 1)), poll((5, 4)), poll((0, 1))],  # the system may move it
    [poll((0, 1), process="c")],  # another process has a place of its own
    [send(1, 7), poll((7, 1))],  # sent again, and there again
])
def test_what_is_no_anomaly_passes(planted):
    assert not names(*GOOD, *planted)


def test_one_that_keeps_its_keys_keeps_its_place():
    assert names(*GOOD, move("assign", "p0", "p1"), poll((2, 2)))["nonmonotonic-poll"] == 1


def test_keys_are_logs_of_their_own():
    assert not names(send(1, 0), send(1, 0, key="p1"), poll((0, 1)), poll((0, 1), key="p1"))


def test_a_value_that_was_sent_twice_must_be_polled_twice():
    assert names(send(1, 0), send(1, 1), send(2, 2), poll((0, 1), (2, 2))) == {"lost-write": 1, "poll-skip": 1}


def test_nothing_polled_says_nothing():
    (found,) = PROPERTY.judge(history(("b", "poll", None, None, {})), "log", 1)
    assert found.outcome == "inconclusive"


# --- against the definitions ------------------------------------------------------------------------------------------


def oracle(said):
    """The names of all anomalies, by trying every pair of everything that was told."""
    found = set()
    acked = [(key, value, told[0]) for _, f, key, value, told, *kind in said if f == "send" and not kind]
    alive = [(key, value) for _, f, key, value, _, *kind in said if f == "send" and kind != ["fail"]]
    failed = [(key, value) for _, f, key, value, _, *kind in said if f == "send" and kind == ["fail"]]
    reads = [(process, key, offset, value) for process, f, _, _, told, *_ in said if f == "poll" for key, each in told.items() for offset, value in each]
    stands = {(key, offset, value) for key, value, offset in acked if offset is not None} | {(key, offset, value) for _, key, offset, value in reads}
    for key, value, offset in acked:
        read = any(k == key and v == value and (alive.count((key, value)) == 1 or offset in (None, o)) for _, k, o, v in reads)
        beyond = offset is not None and any(k == key and o >= offset for _, k, o, _ in reads)
        found |= set() if read else {"lost-write"} if beyond else {"unseen"}
    found |= {"aborted-read" for _, key, _, value in reads if (key, value) in failed and (key, value) not in alive}
    found |= {"inconsistent-offsets" for a in stands for b in stands if a[:2] == b[:2] and a[2] != b[2]}
    for key, _, value in stands:
        if len({o for k, o, v in stands if (k, v) == (key, value)}) > max(1, alive.count((key, value))):
            found.add("duplicate")
    for process in {each[0] for each in said}:
        for key in ("p0", "p1"):
            line = [(o, n) for n, (p, f, _, _, told, *_) in enumerate(said) if p == process and f == "poll" for o, _ in told.get(key, ())]
            for (a, m), (b, n) in pairwise(line):
                between = [each for each in said[m + 1:n] if each[0] == process and each[1] in ("assign", "subscribe")]
                if any(key not in each[3] or each[1] == "subscribe" for each in between):
                    continue
                last = [each[1] for each in said[:n] if each[0] == process and each[1] in ("assign", "subscribe")]
                first = [each[1] for each in said[:m] if each[0] == process and each[1] in ("assign", "subscribe")]
                if last[-1:] == ["subscribe"] or first[-1:] == ["subscribe"]:
                    continue
                if b <= a:
                    found.add("nonmonotonic-poll")
                elif any(k == key and a < o < b for k, o, _ in stands):
                    found.add("poll-skip")
    return found


def any_history(rng):
    """A right one, in which up to six things are changed."""
    said, log, sent = [], {"p0": [], "p1": []}, 0
    places = Counter()
    for _ in range(rng.randint(2, 9)):
        key = rng.choice(("p0", "p0", "p1"))
        if rng.random() < 0.5:
            sent += 1
            outcome = rng.choice([(), (), (), ("info",), ("fail",)])
            offset = len(log[key]) + rng.randint(0, 1)
            there = outcome == () or (outcome == ("info",) and rng.random() < 0.5)
            log[key] += [None] * (offset - len(log[key])) + [sent] if there else []
            said.append(send(sent, offset if rng.random() < 0.8 else None, *outcome, key=key))
        elif rng.random() < 0.2:
            said.append(move(rng.choice(("assign", "assign", "subscribe")), *rng.sample(("p0", "p1"), rng.randint(1, 2)), process=rng.choice("bc")))
        else:
            process = rng.choice("bbc")
            begin = places[process, key]
            end = rng.randint(begin, len(log[key]))
            places[process, key] = end
            said.append(poll(*((o, log[key][o]) for o in range(begin, end) if log[key][o] is not None), process=process, key=key))
    if rng.random() < 0.5:
        said += [poll(*((o, v) for o, v in enumerate(log[key]) if v is not None), process="z", key=key) for key in log]
    for _ in range(rng.choice((0, 1, 1, 3, 6))):
        at = rng.randrange(len(said))
        process, f, key, asked, told, *kind = said[at]
        if f == "poll":
            told = {k: [[o + rng.choice((0, 0, 1, -1)) if o else o, rng.choice((v, v, rng.randint(1, 4)))] for o, v in each if rng.random() < 0.8] for k, each in told.items()}
        elif f == "send":
            kind = rng.choice([[], ["fail"], ["info"]])
        said[at] = (process, f, key, asked, told, *kind)
    return said


def test_it_agrees_with_the_definitions():
    rng, verdicts, seen = random.Random(7), Counter(), Counter()
    for _ in range(HISTORIES):
        said = any_history(rng)
        found = set(names(*said))
        assert found == oracle(said), said
        verdicts[bool(found)] += 1
        seen.update(found)
    assert min(verdicts.values()) > HISTORIES / 5
    assert min(seen[name] for name in ANOMALIES) > HISTORIES / 100


def test_the_command_line_judges_a_file_of_it(tmp_path, capsys):
    lines = [
        {"process": 0, "type": "invoke", "f": "send", "key": 0, "value": "m1"}, {"process": 0, "type": "ok", "f": "send", "key": 0, "value": [0, "m1"]},
        {"process": 1, "type": "invoke", "f": "assign", "value": [0]}, {"process": 1, "type": "ok", "f": "assign", "value": [0]},
        {"process": 1, "type": "invoke", "f": "poll", "value": None}, {"process": 1, "type": "ok", "f": "poll", "value": {"0": [[0, "m2"]]}},
    ]
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit) as ended:
        main(["check", str(file), "--check", "queue-model"])
    assert ended.value.code == 5
    assert "1 lost-write, 1 inconsistent-offsets" in capsys.readouterr().out
    file.write_text("".join(json.dumps(line) + "\n" for line in lines).replace('[0, "m1"]', '"m1"'))
    with pytest.raises(SystemExit) as ended:
        main(["check", str(file), "--check", "queue-model"])
    assert ended.value.code == 2
    assert "history.jsonl:2" in capsys.readouterr().err
