"""The tests' own Docker engine and what stands in for public images."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
DEADLINE_S = 60.0
HERE = Path(__file__).parent


@contextmanager
def running(engine, image, *argv, options=()):
    name = engine.docker("run", "-d", *options, image, *argv).stdout.strip()
    try:
        yield name
    finally:
        engine.docker("rm", "-f", "-v", name)


def until_output(engine, container, *argv, wanted):
    deadline = time.monotonic() + DEADLINE_S
    while wanted not in (done := engine.docker("exec", container, *argv, check=False)).stdout:
        logs = engine.docker("logs", container, check=False)
        assert time.monotonic() < deadline, f"{done.stdout}{done.stderr}\n{logs.stdout}{logs.stderr}"
        time.sleep(0.1)
    return done.stdout


def test_the_engine_answers_where_docker_host_says(docker_engine):
    told = subprocess.run(["docker", "version", "--format", "{{.Server.Os}}"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "linux"


def test_two_processes_share_one_engine_and_the_last_ends_it(docker_engine):
    script = "from docker_engine.engine import docker_engine\nwith docker_engine() as one: print(one.host)"
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HERE.parent)
    assert again.stdout.strip() == docker_engine.host
    assert docker_engine.docker("info", "--format", "{{.Driver}}").stdout.strip()


@pytest.mark.parametrize("victim", ["user", "keeper"])
def test_an_engine_of_tests_leaves_nothing_when_it_is_killed(victim):
    apart = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
    with tempfile.TemporaryDirectory() as cache:  # with a short path, for sockets
        env = {**os.environ, "ENVCTL_CACHE": cache, "PYTHONPATH": str(HERE.parent)}
        env.pop("DOCKER_HOST", None)
        done = subprocess.run([*apart, sys.executable, HERE / "killed.py", victim, cache], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_postgres_answers_queries_after_running_the_scripts_it_was_given(docker_engine, docker_images, tmp_path):
    docker_images("postgres:15")
    tmp_path.chmod(0o755)
    (tmp_path / "tables.sql").write_text("CREATE TABLE parcel (id int); INSERT INTO parcel VALUES (7);")
    options = ("-e", "POSTGRES_USER=shop", "-e", "POSTGRES_PASSWORD=secret", "-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro")
    with running(docker_engine, "postgres:15", "-c", "max_connections=20", options=options) as one:
        query = ("psql", "-h", "127.0.0.1", "-U", "shop", "-tAc", "SELECT id, current_setting('max_connections') FROM parcel")
        assert until_output(docker_engine, one, "env", "PGPASSWORD=secret", *query, wanted="7|20")
        assert "postgres" in docker_engine.docker("exec", one, "stat", "-c", "%U", "/proc/1/exe", "/proc/1").stdout


def test_redis_answers_and_does_not_run_as_root(docker_engine, docker_images):
    docker_images("redis:7")
    with running(docker_engine, "redis:7", "--appendonly", "yes") as one:
        until_output(docker_engine, one, "redis-cli", "ping", wanted="PONG")
        assert docker_engine.docker("exec", one, "stat", "-c", "%U", "/proc/1").stdout.strip() == "redis"


def test_kafka_makes_a_topic_and_tells_of_it(docker_engine, docker_images):
    docker_images("apache/kafka:4.1.1")
    with running(docker_engine, "apache/kafka:4.1.1") as one:
        topics = ("/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "localhost:9092")
        until_output(docker_engine, one, *topics, "--create", "--if-not-exists", "--topic", "parcels", wanted="Created topic")
        assert "parcels" in docker_engine.docker("exec", one, *topics, "--list").stdout


def test_variables_replace_the_configuration_of_kafka(docker_engine, docker_images):
    docker_images("apache/kafka:4.1.1")
    settings = {
        "NODE_ID": "3", "PROCESS_ROLES": "broker,controller", "LISTENERS": "INSIDE://:19092,CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": "INSIDE://localhost:19092", "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "INTER_BROKER_LISTENER_NAME": "INSIDE", "LISTENER_SECURITY_PROTOCOL_MAP": "INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_QUORUM_VOTERS": "3@localhost:9093", "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    }
    options = [word for name, value in settings.items() for word in ("-e", f"KAFKA_{name}={value}")]
    with running(docker_engine, "apache/kafka:4.1.1", options=options) as one:
        ask = ("/opt/kafka/bin/kafka-broker-api-versions.sh", "--bootstrap-server", "localhost:19092")
        until_output(docker_engine, one, *ask, wanted="(id: 3 ")


def test_a_dockerfile_installs_with_apt_and_pip(docker_engine, docker_images, tmp_path):
    from docker_engine.images import build

    docker_images("python:3.11-slim-bookworm")
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11-slim-bookworm\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends netcat-openbsd\n"
        "RUN pip install --no-cache-dir six==1.17.0\n"
        'CMD ["python", "-c", "import six; print(six.__version__)"]\n'
    )
    build(docker_engine, tmp_path, "envctl-test-build", "--no-cache")
    try:
        assert docker_engine.docker("run", "--rm", "envctl-test-build").stdout.strip() == "1.17.0"
    finally:
        docker_engine.docker("rmi", "-f", "envctl-test-build")


def test_the_tiny_image_serves_and_has_no_shell(docker_engine, docker_images, tmp_path):
    docker_images("tiny:1", "redis:7")
    (tmp_path / "hello").write_text("hello")
    with running(docker_engine, "tiny:1", options=("-v", f"{tmp_path}:/www:ro", "-w", "/www")) as one:
        shell = docker_engine.docker("exec", one, "sh", "-c", "true", check=False)
        assert shell.returncode in (126, 127)
        fetch = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /hello HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        got = docker_engine.docker("run", "--rm", "--network", f"container:{one}", "--entrypoint", "bash", "redis:7", "-c", fetch)
        assert got.stdout.endswith("hello")


def test_making_images_that_are_there_makes_nothing(docker_engine, docker_images):
    docker_images("tiny:1")
    before = docker_engine.docker("images", "-q", "tiny:1").stdout
    docker_images("tiny:1")
    assert docker_engine.docker("images", "-q", "tiny:1").stdout == before
