"""What all tests share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# Machines that run tests are busy: an example that takes long is no failure.
settings.register_profile("envctl", deadline=None, max_examples=60)
settings.load_profile("envctl")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A real broker on the loopback, one a module."""
    from loopback_broker import Broker, ready

    one = Broker(tmp_path_factory.mktemp("broker"))
    try:
        yield ready(one)
    finally:
        one.stop()

# A shell that starts the tests in the background ignores SIGINT, and so would every command line that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
