"""Messages that can never be handled, and services that can't work for a while, in the whole shop on real engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envctl.substrates.base import Process, Reach
from envctl.substrates.embedded import Embedded
from envctl.waiting import until

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
BY_TOPIC = {"orders.placed": ("payments", "reporting"), "payments.settled": ("orders", "inventory", "notifications", "reporting"),
            "notifications.retry": ("notifications",)}

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]


def order(**changed: object) -> dict[str, Any]:
    return {"order_id": str(uuid.uuid4()), "customer": "c1", "sku": "p1", "quantity": 1, "amount_cents": 100, "status": "charged", **changed}


def written(value: object) -> bytes:
    return json.dumps(value).encode()


POISON = [
    None, b"not json", b"[]", b"{}", b"[" * 100_000, written(order(order_id="17")), written(order(customer="\ud800", order_id="17")),
    written(order(order_id=5)), written({key: value for key, value in order().items() if key != "order_id"}),
]
TOO_MUCH = [written(order(amount_cents=2**70)), written(order(amount_cents="100")), written(order(customer="\0"))]  # not for all


@dataclass
class Shop:
    """A living shop."""

    reach: Reach
    directory: Path

    def start(self, *arguments: str, **streams: Any) -> Process:
        return self.reach.popen(None, [sys.executable, str(ROOT / "tests/shop/inside_shop.py"), *arguments], env={"PYTHONPATH": str(ROOT)}, **streams)

    def send(self, messages: list[tuple[str, bytes | None]], orders: list[str]) -> None:
        file = self.directory / "messages.json"
        file.write_text(json.dumps({"orders": orders, "messages": [
            {"topic": topic, "value": None if value is None else value.hex(), "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            for topic, value in messages
        ]}))
        assert self.start("send", str(file)).wait(LIMIT_S) == 0

    def state(self) -> dict[str, Any]:
        said = self.directory / "state.json"
        with said.open("wb") as out:
            assert self.start("state", stdout=out).wait(LIMIT_S) == 0
        found: dict[str, Any] = json.loads(said.read_text())
        return found

    def comes_to(self, effects: dict[str, set[str]]) -> bool:
        return until(lambda: all(ids <= set(self.state()["done"][service]) for service, ids in effects.items()), LIMIT_S, poll_s=1)

    def complained(self, service: str) -> bool:
        nodes = self.reach.environment().nodes_of(service)
        said = "\n".join(line for node in nodes for line in self.reach.log(node.name))
        return "failed and starts again" in said


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    listed = subprocess.run(["git", "ls-files", "stacks", "envctl.yaml"], cwd=ROOT, check=True, text=True, capture_output=True)
    for name in listed.stdout.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    envctl = [sys.executable, "-m", "envctl"]
    try:
        up = subprocess.run([*envctl, "up", "--full", "--output", "json"], cwd=root, text=True, capture_output=True, check=False)
        assert up.returncode == 0, up.stderr
        yield Shop(Embedded.attach(Path(json.loads(up.stdout)["directory"])), root)
    finally:
        subprocess.run([*envctl, "down"], cwd=root, capture_output=True, check=False)


def test_what_can_never_be_handled_is_set_aside_and_the_rest_goes_on(shop: Shop) -> None:
    goods = {topic: [order(), order()] for topic in BY_TOPIC}
    bad = {topic: [*POISON, *(TOO_MUCH if topic == "orders.placed" else ())] for topic in BY_TOPIC}
    shop.send(
        [(topic, value) for topic in BY_TOPIC for value in (written(goods[topic][0]), *bad[topic], written(goods[topic][1]))],
        [good["order_id"] for good in goods["payments.settled"]],
    )
    effects: dict[str, set[str]] = {}
    for topic, services in BY_TOPIC.items():
        for service in services:
            effects.setdefault(service, set()).update(good["order_id"] for good in goods[topic])
    assert shop.comes_to(effects), shop.state()
    dead = shop.state()["dead"]
    for service in effects:
        expected = [value for topic, services in BY_TOPIC.items() if service in services for value in bad[topic]]
        assert sorted(each["value"] or "" for each in dead[service]) == sorted((value or b"").hex() for value in expected), service
        assert all(each["reason"] and each["origin"].partition("/")[0] in BY_TOPIC for each in dead[service])
        assert all(each["traceparent"].split("-")[1] == TRACE for each in dead[service])


def test_what_fails_for_now_is_repeated_and_never_set_aside(shop: Shop) -> None:
    placed, settled = order(), order()
    shop.send([], [settled["order_id"]])
    before = shop.state()["dead"]
    held, let_go = os.pipe()
    told, tell = os.pipe()
    locker = shop.start("lock", stdin=held, stdout=tell)
    os.close(held)
    os.close(tell)
    assert os.read(told, 6) == b"locked"
    shop.send([("orders.placed", written(placed)), ("payments.settled", written(settled))], [])
    stuck = ("payments", "orders", "inventory", "reporting")  # notifications has its retry topic
    assert until(lambda: all(shop.complained(service) for service in stuck), LIMIT_S, poll_s=0.2)
    os.close(told)
    os.close(let_go)
    assert locker.wait(LIMIT_S) == 0
    both = {placed["order_id"], settled["order_id"]}
    assert shop.comes_to({
        "payments": {placed["order_id"]}, "orders": {settled["order_id"]}, "inventory": both, "notifications": both, "reporting": both,
    }), shop.state()
    assert shop.state()["dead"] == before
