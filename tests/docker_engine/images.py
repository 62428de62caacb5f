"""Images under the names that users' files have, where none can be pulled: made of the distribution's packages, once.

An image is made again when its recipe (a directory in `recipes/`), what it is made from, or how this machine's package clients
are configured has changed.  Images get that configuration too, so that `RUN apt-get install` and `RUN pip install` work in what
is built from them.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from docker_engine.engine import Engine

from envctl.toolchain.tool import cache_dir

RECIPES = Path(__file__).with_name("recipes")
LABEL = "envctl.test.recipe"
BASE, SUITE = "debian:bookworm-slim", "bookworm"
IMAGES: Mapping[str, str] = {
    "python:3.11-slim-bookworm": "python",
    "postgres:15": "postgres",
    "redis:7": "redis",
    "apache/kafka:4.1.1": "kafka",
    "tiny:1": "tiny",
}
_FORM = 2  # raise it when the base image becomes a different one
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_PROXIES = [name for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if name in os.environ]


def ensure(engine: Engine, *names: str) -> None:
    """Makes those of the images (by default: all) that the engine lacks.  An engine that is not ours pulls them where it can."""
    wanted = names or tuple(IMAGES)
    if all(_fits(engine, name) for name in wanted):
        return
    with (cache_dir() / "docker-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in wanted:
            if not _fits(engine, name) and (engine.ours or engine.docker("pull", name, check=False).returncode):
                _made(engine, name)
        if engine.ours:
            engine.docker("image", "prune", "--force")  # what has been replaced


def _fits(engine: Engine, name: str) -> bool:
    asked = engine.docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name, check=False)
    if asked.returncode or not engine.ours:  # whatever the owner of an engine has by that name is right
        return asked.returncode == 0
    return asked.stdout.strip() == _key(name)


def _key(name: str) -> str:
    """What an image depends on, as a digest."""
    whole = hashlib.sha256(f"{_FORM} {name}".encode())
    files = sorted(RECIPES.joinpath(IMAGES[name]).rglob("*")) if name in IMAGES else []
    for path in files:
        if path.is_file():
            whole.update(f"{path.relative_to(RECIPES)}{path.stat().st_mode & 0o111}".encode() + path.read_bytes())
    whole.update(repr(sorted(_client_files().items())).encode())
    return whole.hexdigest()[:32]


def _made(engine: Engine, name: str) -> None:
    if name == BASE:
        _bootstrapped(engine)
        return
    if not _fits(engine, BASE):
        _bootstrapped(engine)
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        context = Path(scratch) / "context"
        shutil.copytree(RECIPES / IMAGES[name], context)
        if IMAGES[name] == "kafka":
            _kafka_libraries(context, name.partition(":")[2])
        build(engine, context, name, f"--label={LABEL}={_key(name)}")


def build(engine: Engine, context: Path, tag: str, *options: str) -> None:
    """`docker build`, with the proxies of this machine."""
    proxies = [f"--build-arg={name}={os.environ[name]}" for name in _PROXIES]
    engine.docker("build", "--quiet", *proxies, *options, "--tag", tag, context)


def _bootstrapped(engine: Engine) -> None:
    """The base image: a minimal Debian that asks where this machine asks."""
    program = _debootstrap()
    with tempfile.TemporaryDirectory(prefix="debian-") as scratch:
        root = Path(scratch) / "root"
        _run(program, "--variant=minbase", "--include=ca-certificates", SUITE, root, _mirror())
        (root / "etc/apt/sources.list").unlink()  # names a mirror a second time
        for path, content in _client_files().items():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        shutil.rmtree(root / "var/cache/apt/archives")
        shutil.rmtree(root / "var/lib/apt/lists")
        _run("tar", "-C", root, "-cf", f"{scratch}/root.tar", ".")
        engine.docker("import", "--change", f"LABEL {LABEL}={_key(BASE)}", "--change", 'CMD ["bash"]', f"{scratch}/root.tar", BASE)


def _debootstrap() -> str:
    if not shutil.which("debootstrap"):
        _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "debootstrap")
    return "debootstrap"


def _run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert not done.returncode, f"{argv[0]} failed:\n{done.stdout[-3000:]}"
    return done.stdout


def _mirror() -> str:
    """Where this machine's apt has the suite's main packages from."""
    listed = _run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    found = re.search(rf"^{SUITE} main (\S+)$", listed, re.MULTILINE)
    assert found, f"apt on this machine has no packages of Debian {SUITE}, of which the images are made"
    return found[1]


@functools.cache
def _client_files() -> dict[str, bytes]:
    """Configuration of this machine's apt and pip, by path in an image."""
    trusted = Path("/usr/local/share/ca-certificates").glob("*.crt")  # otherwise the bundle loses them when it is made again
    files = {str(path): path.read_bytes() for path in (*_apt_files(), *trusted)}
    settings = _pip_settings()
    authorities = Path(settings.get("cert", _BUNDLE))
    if authorities.exists():
        files[str(_BUNDLE)] = authorities.read_bytes()
        if "cert" in settings:
            settings["cert"] = str(_BUNDLE)
    files["/etc/pip.conf"] = "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in sorted(settings.items()))]).encode()
    return files


def _apt_files() -> Iterator[Path]:
    etc = Path("/etc/apt")
    yield from etc.glob("sources.list")
    for pattern in ("sources.list.d/debian*", "apt.conf.d/99*", "auth.conf.d/*"):
        yield from (path for path in etc.glob(pattern) if path.is_file())


def _pip_settings() -> dict[str, str]:
    """Where pip installs from, whether a file or the environment says so."""
    listed = _run(sys.executable, "-m", "pip", "config", "list")
    found = dict(re.findall(r"^\S*?\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    return {key: found[key].replace("\\n", " ") for key in ("cert", "index-url", "extra-index-url", "trusted-host") if key in found}


def _kafka_libraries(context: Path, version: str) -> None:
    """The broker's libraries as `envctl setup` fetches them, and the command-line tools."""
    from envctl.toolchain import maven
    from envctl.toolchain.lookup import find

    kafka = find("kafka", version)
    shutil.copytree(kafka.home / "libs", context / "libs")
    shutil.copy(kafka.home / "log4j2.properties", context)
    wanted = (f"-Dkafka.version={version}", "-DexcludeTransitive=true", f"-DoutputDirectory={context / 'libs'}")
    _run(maven._maven(context.parent, print), "-B", "-q", "-C", "-f", context / "pom.xml", *wanted, maven._COPY)
