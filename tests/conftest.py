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


@pytest.fixture(scope="session")
def docker_engine():
    """A Docker engine (`Engine`), shared by all processes of this run; DOCKER_HOST says where."""
    from docker_engine.engine import docker_engine

    with docker_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_images(docker_engine):
    """`docker_images("postgres:15", …)` makes sure that the engine has these images."""
    from docker_engine.images import ensure

    return lambda *names: ensure(docker_engine, *names)


# A shell that starts the tests in the background ignores SIGINT, and nohup SIGHUP: so would every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _signals():
    """What a command that runs in this process does with signals ends with the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
