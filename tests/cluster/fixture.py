"""The fixture `cluster`: one cluster a machine, shared by all tests that ask for it; import it into a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import build
from cluster.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    built = build.find()
    if built is None:
        pytest.fail("the programs of Kubernetes are not built: `make test-kubernetes` builds them (cold: about a quarter of an hour)")
    with Cluster(built.home / "cluster", built) as one:
        yield one
