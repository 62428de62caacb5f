"""Brings images of the Docker engine that DOCKER_HOST names into a cluster: `python -m cluster.load IMAGE…`, or `COMMAND` from anywhere.

The cluster is the one of the kubeconfig that KUBECONFIG names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster import build
from cluster.cluster import Cluster

from envctl.errors import ResourceError

_TESTS = Path(__file__).parents[1]
COMMAND = ("env", f"PYTHONPATH={_TESTS}:{_TESTS.parent}", sys.executable, "-m", "cluster.load")
"""The command line that takes names of images."""


def load(cluster: Cluster, *images: str) -> tuple[str, ...]:
    """Brings them there; returns the names by which pods know them.  Raises ResourceError with what either engine says."""
    known = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, text=True, check=False)
    if known.returncode:  # saving says less
        raise ResourceError(known.stderr.strip())
    with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        return cluster.load_stream(saving.stdout)


def main() -> None:
    built = build.find()
    assert built is not None, "the programs of Kubernetes are not built"
    sys.stdout.writelines(f"{name}\n" for name in load(Cluster(Path(os.environ["KUBECONFIG"]).parent, built), *sys.argv[1:]))


if __name__ == "__main__":
    main()
