"""The fixture `kubernetes_plugin`: the stand-in of Pulumi's plug-in for Kubernetes where an engine looks for plug-ins."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster.cluster import Cluster

NAME = "pulumi-resource-kubernetes"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A directory for PATH, and the environment of a process that calls `pulumi`."""

    directory: Path
    environment: dict[str, str]


def put(directory: Path) -> Path:
    """Puts the executable there."""
    program = directory / NAME
    tests = Path(__file__).parents[1]
    path = ":".join(map(shlex.quote, (str(tests), str(tests.parent))))
    program.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -m cluster.provider "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def kubernetes_plugin(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    directory = tmp_path_factory.mktemp("plugin")
    put(directory)
    path = f"{directory}:{os.environ['PATH']}"
    return Plugin(directory, {"PATH": path, **cluster.environment})
