"""A keeper that goes when it is asked to run a command."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from envctl.errors import NoEnvironmentError
from envctl.substrates.keeper.apart import ReachApart
from envctl.substrates.keeper.wire import Lines


class Goes(ReachApart):
    """To a keeper that goes before or after it has heard the request."""

    def __init__(self, directory: Path, *, hears: bool) -> None:
        super().__init__(directory)
        self._hears = hears

    def connect(self) -> Lines:
        ours, theirs = socket.socketpair()
        if self._hears:
            threading.Thread(target=lambda: (theirs.recv(1 << 16), theirs.close()), daemon=True).start()
        else:
            theirs.close()
        return Lines(ours)


@pytest.mark.parametrize("hears", [False, True])
def test_a_keeper_that_goes_when_it_is_asked_for_a_command_has_ended(tmp_path: Path, hears: bool) -> None:
    with pytest.raises(NoEnvironmentError, match="ended in the middle of `spawn`"):
        Goes(tmp_path / "shop-main-1", hears=hears).popen(None, ["true"])
