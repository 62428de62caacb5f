"""A snapshot of real brokers is made in whatever order they stop."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from envctl import session
from envctl.seeding import snapshots
from envctl.spec import find_root, load_project
from envctl.substrates.embedded.reach import CellReach
from envctl.toolchain import cache_dir
from envctl.waiting import until

STACK = Path(__file__).parents[2] / "stacks" / "hello"
TOPOLOGY = """envctl: topology/v1
name: busy
components:
  bus: {kind: kafka, version: "4.1", brokers: 3, topics: {orders: {partitions: 3}}}
"""
SEED = """envctl: seed/v1
name: orders
load:
  - {into: bus, topic: orders, from: orders.jsonl, key: number, messages: 9, sha256: %s}
"""
LINES = "".join(f'{{"number": "{number}"}}\n' for number in range(9))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seeds" / "orders").mkdir(parents=True)
    (tmp_path / "seeds" / "orders" / "orders.jsonl").write_text(LINES)
    (tmp_path / "seeds" / "orders" / "seed.yaml").write_text(SEED % hashlib.sha256(LINES.encode()).hexdigest())
    (tmp_path / "stacks" / "busy").mkdir(parents=True)
    (tmp_path / "stacks" / "busy" / "topology.yaml").write_text(TOPOLOGY)
    for file in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(STACK / file, tmp_path / "stacks" / "busy")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tools").symlink_to(cache_dir() / "tools")
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/busy\n")
    return tmp_path


@pytest.mark.cell
@pytest.mark.engines
@pytest.mark.slow
def test_the_last_broker_stops_although_its_quorum_has_gone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(reach: CellReach, node: str, number: int) -> None:
        send(reach, node, number)
        assert until(lambda: reach.node(node).pid is None, 120), f"{node} goes on"

    send = CellReach.signal
    monkeypatch.setattr(CellReach, "signal", in_turn)
    found = load_project(find_root(project))
    plan, _ = session.make_plan(found, None, session.Asked(full=True))
    said: list[str] = []
    snapshot = snapshots.prepare(plan, session.seed_named(found, plan, "orders"), said.append)
    kept = cache_dir() / "snapshots" / snapshot.key
    logs = [path.name for path in (kept / "bus-2" / "log").glob("orders-*")]
    assert sorted(logs) == ["orders-0", "orders-1", "orders-2"]
    assert (kept / "bus-2" / "log" / ".kafka_cleanshutdown").exists(), "it need not look for what it lost"
    assert any("keeping 0 rows and 9 messages" in words for words in said)
