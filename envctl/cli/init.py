"""`envctl init`: a commented configuration and a small system to start from."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import click

from envctl.errors import ResourceError, UsageError

NAME = "hello"  # the system that is written
PATTERNS = (f"stacks/{NAME}/**/*", f"scenarios/{NAME}*.yaml", f"scenarios/traffic/{NAME}*.jsonl", f"seeds/{NAME}*/**/*")
_IGNORED = {"__pycache__", ".pytest_cache", ".envctl"}
_SCHEMAS = Path(".envctl/schemas")
_FORMAT = re.compile(rb"^envctl: (\w+)/(v\d+)", re.MULTILINE)
CONFIGURATION = """\
# A project's defaults.  `envctl schema project` describes every field.
envctl: project/v1

# The system: the directory with its topology.yaml.
stack: stacks/hello

# What changed is found by comparing with this branch; what it does not touch is left out of the environment.
base: origin/main

# Where environments run, and how long one stays after it was last used.
substrate: embedded
ttl: 2h

# Groups of scenarios; a scenario names its suites.  An inconclusive run is retried once on a fresh environment.
suites:
  pr: {inconclusive: retry}

# What a verdict is made of.
gate: {checks: all, slo: all, stubs_unverified: warn}
"""


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(directory: Path) -> None:
    """Write envctl.yaml and the smallest useful system (one HTTP service, one PostgreSQL, one scenario) into DIRECTORY.

    Nothing that is there is overwritten: if any of the files exists, nothing is written.
    """
    from envctl.spec.structure import FORMATS, schema

    texts = starter()
    texts[Path("envctl.yaml")] = _with_schema(Path("envctl.yaml"), CONFIGURATION.encode())
    schemas = {_SCHEMAS / f"{name}.v1.json": json.dumps(schema(name), indent=2).encode() for name in FORMATS}
    there = sorted(str(file) for file in texts if (directory / file).exists())
    if there:
        raise UsageError(f"nothing was written, because {', '.join(there)} would be overwritten", hint="move it away, or choose another directory")
    ignored = {Path(".envctl/.gitignore"): b"*\n"}
    for file, content in {**ignored, **schemas, **texts}.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(content)
    for file in sorted(texts):
        click.echo(f"wrote {directory / file}")
    click.echo("\nnext: `envctl ci` brings it up, hurts it, judges it and removes it (`envctl setup` gets what the machine lacks)")


def starter() -> dict[Path, bytes]:
    """The files of the small system: relative path → content.  Raises ResourceError where the installation lacks them."""
    packaged = Path(str(resources.files("envctl"))) / "starter"
    checkout = Path(str(resources.files("envctl"))).parent
    root = packaged if packaged.is_dir() else checkout
    found = {
        file.relative_to(root): _with_schema(file.relative_to(root), file.read_bytes())
        for pattern in PATTERNS
        for file in sorted(root.glob(pattern))
        if file.is_file() and not _IGNORED & set(file.parts)
    }
    if not found:
        raise ResourceError("this installation of envctl lacks the system that init writes", hint="install it again")
    return found


def _with_schema(file: Path, content: bytes) -> bytes:
    """A file of one of our formats with the line by which editors find its schema."""
    found = _FORMAT.search(content) if file.suffix == ".yaml" else None
    if found is None:
        return content
    schema = Path(*[".."] * (len(file.parts) - 1)) / _SCHEMAS / f"{found[1].decode()}.{found[2].decode()}.json"
    lines = [line for line in content.splitlines(keepends=True) if not line.startswith(b"# yaml-language-server:")]
    return b"".join([f"# yaml-language-server: $schema={schema}\n".encode(), *lines])
