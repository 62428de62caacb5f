"""Images of a Docker engine in a cluster, brought by the command line that a user's setting would name."""

from __future__ import annotations

import os
import subprocess
import tarfile
import uuid

import pytest
from cluster import load

pytestmark = [pytest.mark.kubernetes, pytest.mark.docker]


def bring(cluster, image):
    return subprocess.run([*load.COMMAND, image], env={**os.environ, **cluster.environment}, cwd="/", capture_output=True, text=True, check=False)


def test_an_image_of_a_docker_engine_runs_in_the_cluster(cluster, docker_engine, tmp_path):
    name, archive = f"greeter-{uuid.uuid4().hex[:8]}", tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(cluster.built.debian / "bin/busybox", arcname="bin/busybox")
    docker_engine.docker("import", "--change", 'ENTRYPOINT ["/bin/busybox", "echo", "hello"]', archive, f"{name}:1")
    try:
        assert bring(cluster, f"{name}:1").stdout.endswith(f"/library/{name}:1\n")
    finally:
        docker_engine.docker("image", "rm", f"{name}:1")
    cluster.kubectl("run", name, f"--image={name}:1", "--image-pull-policy=Never", "--restart=Never")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=30s")
    assert cluster.kubectl("logs", name) == "hello\n"
    cluster.kubectl("delete", "pod", name, "--wait=false")


def test_an_image_that_the_engine_lacks_is_an_error_that_says_so(cluster, docker_engine):
    done = bring(cluster, "nowhere:1")
    assert done.returncode
    assert "nowhere" in done.stderr
