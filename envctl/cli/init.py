"""`envctl init`: a commented configuration and a small system to start from, or the system of Compose files."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

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
@click.option("--from", "-f", "sources", multiple=True, metavar="FILE", type=click.Path(exists=True, path_type=Path),
              help="Import this Compose file (or the one in this directory); given again, the next one is on top of it.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="With the services of this profile; may be given again.")
@click.option("--project-directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Relative paths in the Compose files count from here.")
@click.option("--name", default="", metavar="NAME", help="Call the stack so, instead of by the Compose project's name.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How the answer to --from is printed.")
def init(directory: Path, sources: tuple[Path, ...], **options: Any) -> None:
    """Write envctl.yaml and the smallest useful system (one HTTP service, one PostgreSQL, one scenario) into DIRECTORY.

    With --from, the system of Compose files instead: what they say becomes a topology, and what of it can't is listed, with
    line and reason.  Nothing that is there is overwritten: if any of the files exists, nothing is written.
    """
    if sources:
        _import(directory, sources, **options)
        return
    if options["profiles"] or options["project_directory"] or options["name"] or options["output"] != "text":
        raise UsageError("--profile, --project-directory, --name and --output belong to --from")
    texts = starter()
    texts[Path("envctl.yaml")] = _with_schema(Path("envctl.yaml"), CONFIGURATION.encode())
    for file in _written(directory, texts):
        click.echo(f"wrote {file}")
    click.echo("\nnext: `envctl ci` brings it up, hurts it, judges it and removes it (`envctl setup` gets what the machine lacks)")


def _import(
    directory: Path, sources: tuple[Path, ...], *, profiles: tuple[str, ...], project_directory: Path | None, name: str, output: str
) -> None:
    from envctl.compose import compose_files, import_compose
    from envctl.spec import load_topology

    files = [file for source in sources for file in compose_files(source)]
    found = import_compose(files, directory, os.environ, directory=project_directory, profiles=profiles, name=name)
    stack = Path("stacks") / found.name
    load_topology(directory / stack / "topology.yaml", files=False, text=found.topology)
    texts = {stack / path: text.encode() for path, text in found.files.items()}
    for file, content in starter().items():
        if file.name in ("__main__.py", "Pulumi.yaml"):
            texts[stack / file.name] = re.sub(rb"(?m)^(name|description): .*$", lambda line: _about(line, found.name), content)
    texts[stack / "topology.yaml"] = _with_schema(stack / "topology.yaml", found.topology.encode())
    if not (directory / "envctl.yaml").exists():
        configuration = CONFIGURATION.replace(f"stack: stacks/{NAME}", f"stack: {stack}").replace("substrate: embedded", "substrate: docker")
        texts[Path("envctl.yaml")] = _with_schema(Path("envctl.yaml"), configuration.encode())
    written = _written(directory, texts)
    if output == "json":
        left = [{"file": str(each.file), "line": each.line, "field": each.field, "reason": each.reason} for each in found.left]
        click.echo(json.dumps({"format": "init/v1", "stack": found.name, "written": list(map(str, written)), "left": left}, indent=2))
        return
    for written_file in written:
        click.echo(f"wrote {written_file}")
    click.echo(f"\n{len(found.left) or 'nothing'} not carried over, or not as it is there{':' if found.left else ''}")
    for each in found.left:
        click.echo(f"{each.file}:{each.line}: {each.field}: {each.reason}")
    click.echo(f"\nnext: read {directory / stack / 'topology.yaml'}, then `envctl up` (`envctl doctor` says what the machine lacks)")


def _about(line: re.Match[bytes], name: str) -> bytes:
    return f"name: {name}".encode() if line[1] == b"name" else b"description: Imported from Compose files"


def _written(directory: Path, texts: dict[Path, bytes]) -> list[Path]:
    """Writes the files, and what editors and git need beside them.  Raises UsageError where one is there already."""
    from envctl.spec.structure import FORMATS, schema

    schemas = {_SCHEMAS / f"{name}.v1.json": json.dumps(schema(name), indent=2).encode() for name in FORMATS}
    there = sorted(str(file) for file in texts if (directory / file).exists())
    if there:
        raise UsageError(f"nothing was written, because {', '.join(there)} would be overwritten", hint="move it away, or choose another directory")
    ignored = {Path(".envctl/.gitignore"): b"*\n"}
    for file, content in {**ignored, **schemas, **texts}.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(content)
    return [directory / file for file in sorted(texts)]


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
