"""Being told to end, and when it is heard."""

from __future__ import annotations

import signal

import pytest

from envctl.waiting import unheard


def test_an_interrupt_is_heard_when_it_may_be() -> None:
    reached = []
    with unheard() as hear:
        signal.raise_signal(signal.SIGINT)
        reached.append("begun")
        with pytest.raises(KeyboardInterrupt):
            hear()
        hear()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert reached == ["begun"]


def test_an_interrupt_is_heard_at_the_end_at_the_latest() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), unheard():
        signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.default_int_handler, before)
