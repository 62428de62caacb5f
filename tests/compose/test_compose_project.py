"""How several Compose files become one model, and what is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from envctl.compose import Imported, import_compose
from envctl.compose.project import compose_files, load
from envctl.compose.values import Cursor, Value
from envctl.errors import SpecError, UsageError


def plain(value: Value) -> Any:
    if isinstance(value.data, dict):
        return {key: plain(below) for key, below in value.data.items()}
    return [plain(below) for below in value.data] if isinstance(value.data, list) else value.data


def write(root: Path, **files: str) -> list[Path]:
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return [root / f"{name}.yaml" for name in files if "__" not in name]


def services(root: Path, **files: str) -> Any:
    return plain(load(write(root, **files), None, {}, lambda *_: None).model)["services"]


def test_a_later_file_is_on_top_as_the_specification_says(tmp_path: Path) -> None:
    found = services(tmp_path, one="""
        services:
          a:
            image: one
            command: [one, two]
            environment: [A=1, B=1]
            depends_on: [b]
            ports: ["80:80", "81:81"]
            volumes: ["./one:/data", "./two:/two"]
            healthcheck: {test: [CMD, one], retries: 1}
            dns: 1.1.1.1
            labels: {x: 1}
            build: ./app
            secrets: [s]
          b: {image: b}
    """, two="""
        services:
          a:
            image: two
            command: [three]
            environment: {B: 2, C: 3}
            depends_on: {c: {condition: service_healthy}}
            ports: ["80:80", "82:82"]
            volumes: ["./other:/data:ro"]
            healthcheck: {test: [CMD, two]}
            dns: [2.2.2.2]
            labels: [y=2]
            build: {target: dev}
            secrets: [{source: s, target: s}]
            user:
          c: {image: c}
    """)
    a = found["a"]
    assert (a["image"], a["command"], a["environment"]) == ("two", ["three"], {"A": "1", "B": "2", "C": "3"})
    assert a["depends_on"] == {"b": {"condition": "service_started"}, "c": {"condition": "service_healthy"}}
    assert (a["ports"], a["volumes"]) == (["80:80", "81:81", "82:82"], ["./other:/data:ro", "./two:/two"])
    assert (a["healthcheck"], a["dns"]) == ({"test": ["CMD", "two"], "retries": "1"}, ["1.1.1.1", "2.2.2.2"])
    assert (a["labels"], a["build"]) == ({"x": "1", "y": "2"}, {"context": "./app", "target": "dev"})
    assert a["secrets"] == [{"source": "s", "target": "s"}]
    assert list(found) == ["a", "b", "c"]


def test_reset_takes_away_and_override_replaces(tmp_path: Path) -> None:
    found = services(tmp_path, one="services: {a: {image: x, ports: ['80:80'], environment: {A: 1, B: 2}, dns: [1.1.1.1]}, b: {image: y}}",
                     two="services: {a: {ports: !reset [], environment: {A: !reset null}, dns: !override [2.2.2.2]}, b: !reset null}")
    assert found == {"a": {"image": "x", "environment": {"B": "2"}, "dns": ["2.2.2.2"]}}


def test_merge_keys_take_the_first_and_lose_to_what_is_there(tmp_path: Path) -> None:
    found = services(tmp_path, one="""
        x-a: &a {image: a, user: a}
        x-b: &b {image: b, restart: always}
        services:
          one: {<<: [*a, *b], user: me}
    """)
    assert found == {"one": {"image": "a", "user": "me", "restart": "always"}}


def test_what_is_extended_comes_from_below_with_its_own_directory(tmp_path: Path) -> None:
    found = load(write(tmp_path, one="""
        services:
          web: {extends: {file: base/common.yaml, service: app}, environment: {A: 2}}
          more: {extends: web, command: x}
    """, base__common="""
        services:
          root: {environment: {A: 0, B: 0}}
          app: {extends: {service: root}, build: ., environment: [A=1]}
    """), None, {}, lambda *_: None)
    more = Cursor(found.model).entries()["services"].entries()["more"]
    assert plain(more.value) == {"environment": {"A": "2", "B": "0"}, "build": {"context": "."}, "command": "x"}
    context = more.find("build", "context")
    assert context
    assert (context.value.base, context.value.file) == (tmp_path / "base", tmp_path / "base/common.yaml")


@pytest.mark.parametrize(("text", "line", "fragment"), [
    ("services: {a: {image: x, profiles: [p]}}", 1, "no service is on"),
    ("services:\n", 1, "it has no services"),
    ("services: x\n", 1, "allowed: a mapping"),
    ("a: [", 2, "is not valid YAML"),
    ("- a", 1, "is not a mapping"),
    ("web: {image: nginx}", 1, "it has no services"),
    ("services:\n  a: {image: x}\n  a: {image: y}\n", 3, "'a' is there twice"),
    ("services:\n  a: [x]\n", 2, "found a list, allowed: a mapping"),
    ("services:\n  a:\n    environment: x\n", 3, "allowed: a mapping"),
    ("services:\n  a:\n    restart: always\n", 2, "neither `image` nor `build`"),
    ("services:\n  a:\n    image: ${TAG:?which one}\n", 3, "TAG is required: which one"),
    ("services:\n  a:\n    image: ${TAG\n", 3, "malformed"),
    ("services:\n  a:\n    image: not an image\n", 3, "allowed: an image's reference"),
    ("services:\n  a:\n    build: ./nowhere\n", 3, "there is no directory ./nowhere"),
    ("services:\n  a:\n    image: x\n    depends_on: [b]\n", 4, "no service is called 'b'"),
    ("services:\n  a:\n    image: x\n    depends_on:\n      b: {condition: ready}\n  b: {image: y}\n", 5, "found 'ready', allowed: service_started"),
    ("services:\n  a:\n    image: x\n    ports: [http]\n", 4, "allowed: [[IP:]PUBLISHED:]PORT[/PROTOCOL]"),
    ("services:\n  a:\n    image: x\n    ports: ['99999']\n", 4, "ports from 1 to 65535"),
    ("services:\n  a:\n    image: x\n    volumes: ['data:/data']\n", 4, "no volume is called 'data'"),
    ("services:\n  a:\n    image: x\n    volumes: ['relative']\n", 4, "[SOURCE:]/TARGET[:MODE]"),
    ("services:\n  a:\n    image: x\n    secrets: [s]\n", 4, "no secret is called 's'"),
    ("services:\n  a:\n    image: x\n    healthcheck: {test: [curl, x]}\n", 4, "begins with NONE, CMD or CMD-SHELL"),
    ("services:\n  a:\n    image: x\n    command: 'a \"b'\n", 4, "its quotes are wrong"),
    ("services:\n  a:\n    image: x\n    mem_limit: much\n", 4, "allowed: a size such as 512m"),
    ("services:\n  a:\n    image: x\n    scale: many\n", 4, "allowed: a whole number"),
    ("services:\n  a:\n    image: x\n    stop_grace_period: soon\n", 4, "a duration such as 1m30s"),
    ("services:\n  a:\n    image: x\n    env_file: none.env\n", 0, "can't be read"),
    ("services:\n  a:\n    extends: b\n  b:\n    extends: a\n", 3, "in a circle: a → b → a"),
    ("services:\n  a:\n    extends: {service: b, file: none.yaml}\n", 0, "can't be read"),
    ("services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on: [a]\n", 2, "depend on each other in a circle: a → b → a"),
    ("services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    profiles: [p]\n", 4, "its profile is not on"),
    ("include: [compose.yaml]\nservices:\n  a: {image: x}\n", 0, "it includes itself"),
    ("services:\n  a:\n    image: !secret x\n", 3, "the tag '!secret' is not known"),
])
def test_what_is_wrong_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int, fragment: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        import_compose([tmp_path / "compose.yaml"], tmp_path, {}, name="x")
    first = caught.value.problems[0]
    assert fragment in first.message
    assert first.line == line


def test_all_services_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {command: x}\n  b: {image: x}\n  c: {command: y}\n")
    with pytest.raises(SpecError) as caught:
        import_compose([tmp_path / "compose.yaml"], tmp_path, {}, name="x")
    assert [problem.line for problem in caught.value.problems] == [2, 4]


def test_a_conflict_with_what_is_included_is_refused(tmp_path: Path) -> None:
    write(tmp_path, compose="include: [other.yaml]\nservices:\n  a: {image: x}\n", other="services: {a: {image: y}}\n")
    with pytest.raises(SpecError, match=r"compose\.yaml:1: .*services\.a is in .*other\.yaml and in .*compose\.yaml"):
        import_compose([tmp_path / "compose.yaml"], tmp_path, {}, name="x")


def test_a_directory_stands_for_its_compose_file_and_the_override_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no Compose file in"):
        compose_files(tmp_path)
    write(tmp_path, **{"docker-compose": "", "docker-compose.override": ""})
    assert [file.name for file in compose_files(tmp_path)] == ["docker-compose.yaml", "docker-compose.override.yaml"]


def made(root: Path, text: str, **environment: str) -> Imported:
    (root / "compose.yaml").write_text(text)
    return import_compose([root / "compose.yaml"], root, environment, name="x")


def test_what_stands_in_the_file_itself_is_written_below_the_stack_wherever_it_shall_be_inside(tmp_path: Path) -> None:
    found = made(tmp_path, """
services:
  a:
    build: {context: ., dockerfile_inline: "FROM scratch"}
    configs: [{source: c, target: ../../../etc/c}, c]
configs: {c: {content: text}}
""")
    assert dict(found.files) == {Path("files/a/etc/c"): "text", Path("files/a/c"): "text", Path("files/a.Dockerfile"): "FROM scratch"}


def test_profiles_come_from_the_environment_too(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x}\n  b: {image: y, profiles: [p]}\n"
    assert "\n  b:" not in made(tmp_path, text).topology
    assert "\n  b:" in made(tmp_path, text, COMPOSE_PROFILES="o,p").topology


def test_the_environment_comes_before_the_env_file_and_what_is_literal_stays_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=file\nREGION=eu\n")
    text = "services:\n  a:\n    image: x:${TAG}\n    environment: {R: $REGION, L: '$${REGION}'}\n"
    found = made(tmp_path, text, TAG="outside")
    assert "image: x:outside" in found.topology
    assert "R: eu" in found.topology
    assert "L: '$${REGION}'" in found.topology  # a literal one of the topology
