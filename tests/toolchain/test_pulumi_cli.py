from __future__ import annotations

from pathlib import Path

import pytest

from envctl.errors import CapabilityError
from envctl.toolchain import pulumi_cli
from envctl.toolchain.client import run


def test_the_pinned_modules_are_those_of_the_pinned_version() -> None:
    pinned = (pulumi_cli.MODULE / "go.mod").read_text()
    sums = (pulumi_cli.MODULE / "go.sum").read_text()
    for module in ("pkg", "sdk"):
        assert f"github.com/pulumi/pulumi/{module}/v3 v{pulumi_cli.PULUMI_VERSION}\n" in pinned
        assert f"github.com/pulumi/pulumi/{module}/v3 v{pulumi_cli.PULUMI_VERSION} h1:" in sums
    assert f"\ngo {pulumi_cli.GO_AT_LEAST}\n" in pinned


def test_another_version_than_the_pinned_one_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="not 2"):
        pulumi_cli.build("2", tmp_path, print)


@pytest.mark.parametrize(("says", "enough"), [("go1.26.8", True), ("go1.27rc1", True), ("go1.19.8", False), ("devel", False), ("go2.0", True)])
def test_a_go_that_is_too_old_is_not_taken(says: str, enough: bool) -> None:
    assert pulumi_cli._new_enough(says) is enough


def test_compiled_packages_are_counted() -> None:
    said: list[str] = []
    counter = pulumi_cli._counter(7, said.append)
    counter("internal/goarch")
    counter("unicode")
    assert said[-1] == "compiling, package 2 of at most 7: unicode"


@pytest.mark.slow
def test_a_go_from_a_wheel_compiles_and_writes_only_into_our_cache(bare: Path, tmp_path: Path) -> None:
    go, env = pulumi_cli._go(tmp_path / "spare", lambda _doing: None)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/go.mod").write_text(f"module m\ngo {pulumi_cli.GO_AT_LEAST}\n")
    (tmp_path / "m/main.go").write_text("package main\nfunc main() { println(6 * 7) }\n")
    assert run([go, "run", "."], cwd=tmp_path / "m", env=env) == "42\n"
    assert (tmp_path / "cache/clients/go/build").is_dir()
    assert list((tmp_path / "home").iterdir()) == []


def test_the_machines_go_keeps_its_users_settings_and_writes_nothing_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "config" / "go" / "env"
    settings.parent.mkdir(parents=True)
    settings.write_text("GOPRIVATE=example.org\n")
    for name, place in {"XDG_CONFIG_HOME": "config", "ENVCTL_CACHE": "cache", "HOME": "home"}.items():
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.delenv("GOENV", raising=False)
    go, env = pulumi_cli._go(tmp_path / "spare", lambda _doing: None)
    assert run([go, "env", "GOPRIVATE"], env=env) == "example.org\n"
    assert [path for path in (tmp_path / "config").rglob("*") if path.is_file()] == [settings]
    assert not (tmp_path / "home").exists()
