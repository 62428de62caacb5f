"""Healthchecks, names, ports, images and texts, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envctl.compose.hosts import Host, component_names, rewrite
from envctl.compose.images import kind_of, runs_as_it_is, version_of
from envctl.compose.ports import ports_of
from envctl.compose.probes import probe_of
from envctl.compose.programs import size
from envctl.compose.reading import read
from envctl.compose.report import Report
from envctl.compose.storage import Recipe
from envctl.compose.values import Cursor
from envctl.compose.writing import topology_text
from envctl.spec.document import read as read_strictly
from envctl.spec.units import size_bytes

OWN = {"localhost", "127.0.0.1", "web"}


def cursor(**fields: Any) -> Cursor:
    return Cursor(read(Path("compose.yaml"), Path(), yaml.safe_dump(fields)))


@pytest.mark.parametrize(("test", "probe"), [
    ("curl -f http://localhost:8080/health || exit 1", {"http": "/health", "port": 8080}),
    (["CMD", "curl", "-f", "http://localhost"], {"http": "/", "port": 80}),
    (["CMD", "curl", "-fsSL", "-o", "/dev/null", "http://web:9000/a?b=1"], None),
    (["CMD", "curl", "-fsS", "-o", "/dev/null", "http://web:9000/a?b=1"], {"http": "/a?b=1", "port": 9000}),
    (["CMD", "curl", "http://localhost/"], None),  # any answer would do
    (["CMD", "curl", "-f", "-H", "Host: x", "http://localhost/"], None),
    (["CMD", "curl", "-f", "https://localhost/"], None),
    (["CMD", "curl", "-f", "http://other/"], None),
    (["CMD-SHELL", "curl --fail --silent http://127.0.0.1:3000/ > /dev/null 2>&1 || false"], {"http": "/", "port": 3000}),
    (["CMD-SHELL", "wget -q --spider http://localhost:3000/api || exit 1"], {"http": "/api", "port": 3000}),
    (["CMD", "wget", "-qO-", "http://localhost:1/"], {"http": "/", "port": 1}),
    (["CMD", "wget", "--post-data", "x", "http://localhost/"], None),
    (["CMD-SHELL", "nc -z localhost 5672"], {"tcp": 5672}),
    (["CMD-SHELL", "nc -z other 5672"], None),
    (["CMD", "/bin/grpc_health_probe", "-addr=:50051"], {"grpc": "", "port": 50051}),
    (["CMD", "grpc_health_probe", "-addr=localhost:50051", "-service=a.B"], {"grpc": "a.B", "port": 50051}),
    (["CMD", "pg_isready"], None),
    ("curl -f http://localhost/ && echo", None),
    ("curl -f http://localhost:$PORT/", None),
])
def test_a_usual_healthcheck_is_a_probe_where_it_means_the_same(test: Any, probe: Any) -> None:
    found = probe_of(cursor(test=test), OWN)
    if probe is None:
        words = test[1:] if isinstance(test, list) and test[0] == "CMD" else ["sh", "-c", test if isinstance(test, str) else test[1]]
        assert found == {"exec": words}
    else:
        assert found == probe


@pytest.mark.parametrize("check", [{"test": ["NONE"]}, {"disable": True}, {"test": ["CMD", "x"], "disable": True}, {"interval": "1s"}])
def test_no_healthcheck_is_no_probe(check: dict[str, Any]) -> None:
    assert probe_of(cursor(**check), OWN) is None


HOSTS = {"db": Host("db", "db"), "kafka": Host("kafka", "kafka", {29092: 9092}), "my_db": Host("my-db", "my-db"), "kafka-1": Host("k", "k-0", {9093: 9092})}


@pytest.mark.parametrize(("key", "text", "becomes", "used"), [
    ("URL", "postgres://u:p@my_db:5432/my_db", "postgres://u:p@my-db:5432/my_db", [5432]),
    ("DB_HOST", "my_db", "my-db", [0]),
    ("URL", "postgres://kafka:29092@db/kafka", "postgres://kafka:29092@db/kafka", [0]),
    ("URL", "postgres://kafka@db:1/kafka", "postgres://kafka@db:1/kafka", [1]),
    ("DB_NAME", "my_db", "my_db", []),
    ("BROKERS", "kafka:29092,kafka-1:9093", "kafka:9092,k-0:9092", [29092, 9093]),
    ("NODES", "kafka-1,db", "k-0,db", [0, 0]),
    ("X", "kafka:29092", "kafka:9092", [29092]),
    ("X", "the kafka broker", "the kafka broker", []),
    ("X", "http://db.example.org:80 adb:1 db-2:3 x/db:15", "http://db.example.org:80 adb:1 db-2:3 x/db:15", []),
    ("X", "tcp(db:3306)/x", "tcp(db:3306)/x", [3306]),
    ("X", "http://db/path", "http://db/path", [0]),
    ("X", "1@kafka-1:9093", "1@k-0:9092", [9093]),
    ("X", "db:latest", "db:latest", []),
])
def test_names_of_others_are_found_where_they_are_addresses(key: str, text: str, becomes: str, used: list[int]) -> None:
    found, uses = rewrite(text, HOSTS, key)
    assert found == becomes
    assert [use.port for use in uses] == used


@given(st.lists(st.text(min_size=1, max_size=60), unique=True, max_size=6))
def test_components_have_possible_names_of_their_own(services: list[str]) -> None:
    import re

    names = component_names(services)
    assert list(names) == services
    assert len(set(names.values())) == len(services)
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", name) for name in names.values())


def test_a_possible_name_stays_and_others_make_room() -> None:
    assert component_names(["my_db", "my-db", "Web", "web-0", "telemetry", "9"]) == {
        "my_db": "my-db-x", "my-db": "my-db", "Web": "web-x", "web-0": "web-0", "telemetry": "telemetry-x", "9": "service-9",
    }


@pytest.mark.parametrize(("ports", "expose", "probe", "found"), [
    (["8080:80"], [], {}, {"http": 80}),
    (["127.0.0.1:8080:3000/tcp", "9229"], [], {}, {"http": 3000, "port-9229": 9229}),
    (["8000", "8080"], [], {}, {"port-8000": 8000, "http": 8080}),
    (["8000", "8080"], [], {"http": "/", "port": 8000}, {"http": 8000, "port-8080": 8080}),
    (["5000-5002:6000-6002"], [], {}, {"port-6000": 6000, "port-6001": 6001, "port-6002": 6002}),
    ([{"target": 80, "name": "web"}, {"target": 443}], [], {}, {"web": 80, "https": 443}),
    ([], ["5432", 50051], {}, {"postgres": 5432, "grpc": 50051}),
    (["[::1]:6379:6379"], [], {"tcp": 7000}, {"redis": 6379, "port-7000": 7000}),
    (["53:53/udp"], [], {}, {}),
])
def test_ports_get_names(ports: list[Any], expose: list[Any], probe: dict[str, Any], found: dict[str, int]) -> None:
    assert {port.name: port.number for port in ports_of(cursor(ports=ports, expose=expose), probe, Report())} == found


@pytest.mark.parametrize(("image", "kind", "version", "as_it_is"), [
    ("postgres", "postgres", ">=15", True), ("postgres:15-alpine", "postgres", "15", True), ("registry.example/library/postgres:15.4", "postgres", "15.4", True),
    ("registry:5000/postgres:14", "postgres", "14", True), ("postgis/postgis:15-3.4", "postgres", "15", True), ("pgvector/pgvector:pg16", "postgres", "16", True),
    ("timescale/timescaledb:2.14.2-pg15", "postgres", "15", True), ("bitnami/postgresql:15.4.0-debian-11", "postgres", "15.4", False),
    ("postgres:9.6.24", "postgres", "9.6.24", True), ("postgres@sha256:00", "postgres", ">=15", True),
    ("apache/kafka:3.9.0", "kafka", ">=3.9", True), ("confluentinc/cp-kafka:7.5.0", "kafka", ">=3.5", False), ("confluentinc/cp-kafka:6.2.0", "kafka", ">=3.3", False),
    ("confluentinc/cp-kafka:8.0.0", "kafka", ">=4.0", False), ("wurstmeister/kafka:2.13-2.8.1", "kafka", ">=3.3", False), ("bitnami/kafka", "kafka", ">=4", False),
    ("redis:7.2-bookworm", "redis", "7.2", True), ("valkey/valkey:8", "redis", ">=7", True), ("redis:alpine", "redis", ">=7", True),
])
def test_engines_are_known_by_their_images(image: str, kind: str, version: str, as_it_is: bool) -> None:
    assert kind_of(image) == kind
    assert version_of(image)[0] == version
    assert runs_as_it_is(image) == as_it_is


@pytest.mark.parametrize("image", ["my/postgres:15", "redpandadata/redpanda", "mysql", "redis/redis-stack", "example/apache/kafka"])
def test_what_is_none_of_them_is_not_taken_for_one(image: str) -> None:
    assert kind_of(image) is None


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=30), min_size=1, max_size=4), st.lists(st.text(max_size=12), max_size=5))
def test_every_text_is_written_so_that_it_is_read_back(env: dict[str, str], command: list[str]) -> None:
    text = topology_text("x", [{"name": "a", "kind": "service", "image": {"reference": "x", "command": command}, "env": env}], ["compose.yaml"])
    document = read_strictly(Path("topology.yaml"), text)
    assert not document.problems
    component = document.data["components"]["a"]
    assert component["image"].get("command") == command
    assert component.get("env") == {key: value.replace("${", "$${") for key, value in env.items()}


@given(st.integers(1, 1 << 50))
def test_a_size_is_written_so_that_it_is_read_back(count: int) -> None:
    assert size_bytes(size(count)) == count


@pytest.mark.parametrize(("dockerfile", "has"), [
    ("FROM python\nCOPY . /code", True),
    ("FROM python\nWORKDIR /code\nCOPY src/app app", True),
    ('FROM python\nWORKDIR /\nWORKDIR code\nADD ["src", "./"]', True),
    ('FROM python\nWORKDIR /code\nCOPY --chown=1:1 ["src", "./"]', True),
    ("FROM python\nRUN true \\\n  && true\nCOPY \\\n  --chown=1:1 \\\n  src/app/ /code/app/", True),
    ("FROM python AS base\nCOPY src /code\nFROM base\nUSER app", True),
    ("FROM python AS build\nCOPY . /app\nFROM python\nCOPY --from=build /app /code", True),  # what is in a stage is not looked into
    ("FROM python\nARG HOME\nCOPY src $HOME", True),
    ("FROM python\nCOPY src .", True),  # the directory that the base image works in
    ("FROM python\nCOPY src/a* /code/app/", True),
    ("", True),  # there is none, or it can't be read
    ("FROM python AS build\nCOPY . /app\nFROM python\nCOPY --from=build /app/.venv /app/.venv\nWORKDIR /code", False),
    ("FROM python\nCOPY . /elsewhere", False),
    ("FROM python\nWORKDIR /code\nCOPY requirements.txt .\n# COPY . .", False),
    ("FROM python\nCOPY docs /code/app", False),
])
def test_an_image_has_the_files_that_its_dockerfile_copies(dockerfile: str, has: bool, tmp_path: Path) -> None:
    for name in ("src/app", "docs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "requirements.txt").touch()
    assert Recipe(tmp_path, dockerfile, "").has(tmp_path / "src/app", "/code/app") == has


def test_only_the_stage_that_is_asked_for_counts(tmp_path: Path) -> None:
    dockerfile = "FROM python AS dev\nWORKDIR /code\nFROM dev AS prod\nCOPY . ."
    assert not Recipe(tmp_path, dockerfile, "dev").has(tmp_path, "/code")
    assert Recipe(tmp_path, dockerfile, "prod").has(tmp_path, "/code")
    assert Recipe(tmp_path, dockerfile, "").has(tmp_path, "/code")


def test_an_image_has_nothing_from_outside_of_its_context(tmp_path: Path) -> None:
    assert not Recipe(tmp_path / "app", "FROM python\nCOPY . /code", "").has(tmp_path / "other", "/code")
