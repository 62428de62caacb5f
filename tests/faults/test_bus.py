"""Faults of a real cluster of three brokers, run beside them as the runner does."""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.conftest import Cell
from faults import inside_bus

from envctl.engines.base import Site
from envctl.engines.kafka import KafkaEngine
from envctl.model.environment import NodeSpec
from envctl.toolchain.tool import cache_dir

TESTS = Path(__file__).parents[1]
CASES = [name for name, each in inspect.getmembers(inside_bus, inspect.isfunction) if list(inspect.signature(each).parameters) == ["bus"]]

pytestmark = [pytest.mark.engines, pytest.mark.cell]


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[str], None]]:
    with tempfile.TemporaryDirectory(prefix="envctl-") as place:
        directory = Path(place, "envs", "bus")
        cell = Cell(directory)
        try:
            site = Site(inside_bus.TOPOLOGY, "bus", ("bus",), (), cache_dir())
            cell.realiser.start_node(NodeSpec(name="other-0", component="other", kind="service", zone="a", command=("sleep", "600"), digest="1"), ready_timeout_s=20)
            cell.up(KafkaEngine().realise(inside_bus.BUS, site))
            yield lambda name: cell.beside(sys.executable, str(TESTS / "faults/inside_bus.py"), str(directory), name, PYTHONPATH=str(TESTS.parent)) and None
        finally:
            cell.realiser.end_environment()


@pytest.mark.parametrize("case", CASES)
def test_faults_of_brokers(case: str, run: Callable[[str], None]) -> None:
    run(case)
