"""The programs of a real Kubernetes, built once into the user's cache: `python -m cluster.build` from tests/, or `ensure()`.

Everything comes from Go modules with go.mod and go.sum of ours (`go/`), and from Debian packages that are only unpacked.  Each
part is made beside its place and renamed when it is finished; what a killed build had compiled is kept for the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster import images

from envctl.toolchain import apt, pulumi_cli
from envctl.toolchain.client import run
from envctl.toolchain.tool import cache_dir

VERSION = "1.34.1"
MODULES = Path(__file__).parent / "go"
PAUSE, DNS, BUSYBOX = "localhost/pause:1", "localhost/coredns:1", "localhost/busybox:1"
PACKAGES = ("containerd", "runc", "containernetworking-plugins", "busybox-static")
_STAMP = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in (("gitVersion", f"v{VERSION}"), ("gitMajor", "1"), ("gitMinor", "34"), ("gitTreeState", "clean"))
)
_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")

Say = Callable[[str], None]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Part:
    """Programs that come from one go.mod: their names and the packages they are built from."""

    name: str
    programs: Mapping[str, str]
    stamp: str = ""

    @property
    def directory(self) -> str:
        """Its name says everything that the programs are made from, and how."""
        files = sorted(path for path in (MODULES / self.name).rglob("*") if path.is_file())
        pins = [[str(path.relative_to(MODULES)), path.read_text()] for path in files]
        return f"{self.name}-{_digest(json.dumps([pins, dict(self.programs), self.stamp]))}"

    def builds(self) -> list[tuple[str, list[str]]]:
        """What is built by one call: all programs whose packages bear their names, and each other; the place beneath `bin`."""
        named = [package for name, package in self.programs.items() if package.endswith(f"/{name}")]
        return [(".", named)] * bool(named) + [(name, [package]) for name, package in self.programs.items() if package not in named]


PARTS = (
    Part("own", {"coredns": "./coredns", "pause": "./pause"}),
    Part("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Part("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Part("kubernetes", {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES}, _STAMP),
)


_DEBIAN = "debian-" + _digest(*PACKAGES)
_IMAGES = "images-" + _digest(_DEBIAN, next(part for part in PARTS if part.name == "own").directory, Path(images.__file__).read_text())


@dataclass(frozen=True, slots=True)
class Built:
    """Where everything is."""

    home: Path
    programs: Mapping[str, Path]
    debian: Path  # the root of the unpacked packages
    images: Mapping[str, Path]  # archives of the images that every cluster has, by name
    stages: Path  # how KWOK's nodes and pods behave


def ensure(say: Say) -> Built:
    """Builds what is missing (minutes when all is), and returns it.  A second call costs nothing.

    Raises ResourceError with the last lines of the client that failed.
    """
    home = cache_dir() / "tests" / f"kubernetes-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in PARTS:
            _make(home / part.directory, say, partial(_compile, home, part))
        _make(home / _DEBIAN, say, _unpack)
        _make(home / _IMAGES, say, partial(_pack, home))
        shutil.rmtree(home / "go", ignore_errors=True)
    built = find()
    assert built is not None
    return built


def find() -> Built | None:
    """What `ensure` returns, if all of it is there."""
    home = cache_dir() / "tests" / f"kubernetes-{VERSION}"
    places = [*(home / part.directory for part in PARTS), home / _DEBIAN, home / _IMAGES]
    if not all(place.exists() for place in places):
        return None
    programs = {name: home / part.directory / "bin" / name for part in PARTS for name in part.programs}
    archives = {name: home / _IMAGES / f"{name.partition('/')[2].partition(':')[0]}.tar" for name in (PAUSE, DNS, BUSYBOX)}
    return Built(home, programs, home / _DEBIAN, archives, home / _part("kwok").directory / "stages.yaml")


def _part(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)


def _make(place: Path, say: Say, make: Callable[[Path, Say], object]) -> None:
    """Makes a directory under another name first, so that it is there only when it is finished."""
    if place.exists():
        return
    for left in place.parent.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    try:
        new.chmod(0o755)
        make(new, lambda line: say(f"{place.name}: {line}"))
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _compile(home: Path, part: Part, new: Path, say: Say) -> None:
    spare = new / "spare"
    go, env = pulumi_cli._go(spare, say)
    env |= {"GOMODCACHE": str(home / "go/modules"), "GOCACHE": str(home / "go/build"), "CGO_ENABLED": "0"}
    module = shutil.copytree(MODULES / part.name, spare / "module")
    (new / "bin").mkdir()
    say("fetching modules")
    most = len(run([go, "list", "-deps", *part.programs.values()], cwd=module, env=env).splitlines())
    argv: list[str | Path] = ["nice", go, "build", "-v", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {part.stamp}"]
    for out, packages in part.builds():
        run([*argv, "-o", new / "bin" / out, *packages], cwd=module, env=env, on_line=pulumi_cli._counter(most, say))
    if part.name == "kwok":
        source = Path(run([go, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"], cwd=module, env=env).strip())
        files = [path for stage in _STAGES for path in sorted((source / "kustomize/stage" / stage).glob("*.yaml"))]
        (new / "stages.yaml").write_text("\n---\n".join(path.read_text() for path in files if path.name != "kustomization.yaml"))
    shutil.rmtree(spare)


def _unpack(new: Path, say: Say) -> None:
    apt.unpack(PACKAGES, new, say)
    shutil.rmtree(new / "usr/share", ignore_errors=True)


def _pack(home: Path, new: Path, _say: Say) -> None:
    """The images that every cluster has: the pod's own process, the resolver, and a shell with the usual small programs."""
    programs = home / _part("own").directory / "bin"
    images.pack(new / "pause.tar", PAUSE, {"pause": programs / "pause"}, entrypoint=("/pause",))
    images.pack(new / "coredns.tar", DNS, {"coredns": programs / "coredns"}, entrypoint=("/coredns",))
    busybox = home / _DEBIAN / "bin/busybox"
    applets = [name for name in run([busybox, "--list"]).split() if name != "busybox"]
    images.pack(new / "busybox.tar", BUSYBOX, {"bin/busybox": busybox}, links={f"bin/{name}": "busybox" for name in applets})


if __name__ == "__main__":
    ensure(partial(print, flush=True))
