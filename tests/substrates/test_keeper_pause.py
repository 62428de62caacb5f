"""A pause and what ends it may meet while the processes are being stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from envctl.model.environment import NodeSpec
from envctl.substrates.keeper.supervisor import Unit


class Slow:
    """A life whose processes take a while to stop."""

    address = zone = ""

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stands, self.stopping, self.goes_on = False, asyncio.Event(), asyncio.Event()

    def main(self) -> int:
        return 1

    async def pause(self, _: float) -> None:
        self.stopping.set()
        await self.goes_on.wait()
        self.stands = True

    async def resume(self) -> None:
        self.stands = False


class OfSlow:
    """Starts them."""

    gives_up = True

    async def start(self, _: NodeSpec) -> Slow:
        return Slow()

    async def written(self, _: str) -> int:
        return 0


@pytest.mark.parametrize("ends", ["resumed", "its lease has run out"])
def test_a_pause_that_is_over_before_everything_stands_leaves_nothing_standing(ends: str) -> None:
    async def meet() -> None:
        launcher: Any = OfSlow()
        unit: Unit[Any] = Unit(NodeSpec("a-0", "a", "service", "a", ("x",), "1"), "", launcher)
        while unit.state != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0)
        pausing = asyncio.create_task(unit.pause(60 if ends == "resumed" else 0.01))
        await unit.life.stopping.wait()
        if ends == "resumed":
            await unit.resume()
        else:
            while unit.view().state == "paused":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        unit.life.goes_on.set()
        await pausing
        assert (unit.life.stands, unit.view().state) == (False, "ready")
        unit.forsake()

    asyncio.run(meet())
