"""The substrates as the contract of the door is asked of them."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster import load
from cluster.cluster import Cluster
from docker_engine.engine import Engine

from envctl.model.environment import NodeSpec
from envctl.substrates.base import Realiser, Substrate
from envctl.substrates.docker.image import keeper_image
from envctl.substrates.kubernetes.identity import AGENT, AGENTS, ENV, agent_of
from envctl.toolchain import cache_dir

IMAGE = "python:3.11-slim-bookworm"


def cluster_settings(cluster: Cluster, cache: Path) -> dict[str, str]:
    """Variables by which envctl finds the test cluster, and its way of getting images there, with a cache of the tests' own."""
    loading = shlex.join(("env", f"ENVCTL_CACHE={cache_dir()}", *load.COMMAND, "{image}"))
    return {"ENVCTL_KUBERNETES_LOAD": loading, "KUBECONFIG": str(cluster.kubeconfig), "ENVCTL_CACHE": str(cache)}


class Ground:
    """One substrate, and the environments that a test makes on it."""

    def __init__(self, substrate: Substrate, envs: Path, nft: tuple[str, ...], nft_env: Mapping[str, str], user: str = "") -> None:
        self.substrate, self.nft, self.nft_env, self.user = substrate, nft, nft_env, user
        self._envs = envs
        self.made: list[Realiser] = []
        self.reach: Any = None

    def make(self, *, ttl_s: float = 120.0, labels: Mapping[str, str] | None = None) -> tuple[Any, Realiser]:
        env_id = f"t-{uuid.uuid4().hex[:8]}"
        realiser = self.substrate.realiser(self._envs / env_id)
        self.made.append(realiser)
        realiser.create_environment(env_id, ttl_s=ttl_s, labels=labels or {})
        self.reach = self.substrate.attach(self._envs / env_id)
        return self.reach, realiser

    def node(self, name: str, *command: str, **fields: object) -> NodeSpec:
        """It runs on every substrate."""
        values: dict[str, Any] = {
            "component": name.rpartition("-")[0], "kind": "service", "zone": "a", "digest": "1", "image": IMAGE, "init": True,
            "user": self.user, **fields,
        }
        return NodeSpec(name=name, command=command, **values)

    @staticmethod
    def until(condition: Callable[[], object], what: str, within_s: float = 15.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            time.sleep(0.05)


def used(ground: Ground) -> Iterator[Ground]:
    """Whatever a test has made is gone afterwards."""
    try:
        yield ground
        for realiser in ground.made:
            realiser.end_environment()
            assert ground.substrate.census(realiser.directory) == ()
    finally:
        for realiser in ground.made:
            realiser.end_environment()


@pytest.fixture(scope="session")
def cluster_cache(cluster: Cluster, docker_engine: Engine, docker_images: Callable[..., None]) -> Iterator[Path]:
    """A cache for environments in the test cluster, which has the image of nodes."""
    docker_images(IMAGE)
    load.load(cluster, IMAGE)
    # As long as there is an environment of this version the agents stay: their end is asked for once, not after each test.
    labels = {ENV: "bystander", AGENT: agent_of(keeper_image())}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bystander", "labels": labels}})
    cache = Path(tempfile.mkdtemp(prefix="envctl-test-"))
    yield cache
    cluster.kubectl("delete", "namespace", "bystander", "--ignore-not-found")
    cluster.kubectl("delete", "namespace", AGENTS, "--ignore-not-found")
    shutil.rmtree(cache)
