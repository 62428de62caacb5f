"""How long an environment lives whose keeper is replaced."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from envctl.substrates.keeper.serve import Keeper


def test_a_keeper_goes_on_with_the_lease_of_the_one_before(tmp_path: Path) -> None:
    keeper: Keeper[Any] = Keeper("shop", tmp_path)
    keeper.ttl_s = 100.0
    keeper.inherit(time.time() + 10)
    assert keeper.expires_at == pytest.approx(time.time() + 10, abs=1)
    keeper.inherit(time.time() + 1000)  # by a clock that was wrong
    assert keeper.expires_at == pytest.approx(time.time() + 100, abs=1)
    keeper.inherit(time.time() - 5)
    asyncio.run(asyncio.wait_for(keeper.until_over(lambda: None), 10))
