"""YAML → model: strict, versioned, every error at once with file, line and a hint.

What every command asks of a project is here; the rest is imported when it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from envctl.errors import SpecError

if TYPE_CHECKING:
    from envctl.spec.project import load_project, scenario_file, scenario_files, seed_file
    from envctl.spec.scenario import load_scenario
    from envctl.spec.seed import load_seed
    from envctl.spec.topology import load_topology
    from envctl.spec.topology_rules import unpackaged

__all__ = [
    "find_root", "load_project", "load_scenario", "load_seed", "load_topology", "scenario_file", "scenario_files", "seed_file",
    "state_directory", "unpackaged",
]
FILE = "envctl.yaml"
_ELSEWHERE = {"load_scenario": "scenario", "load_seed": "seed", "load_topology": "topology", "unpackaged": "topology_rules"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(name)
    from importlib import import_module

    found: object = getattr(import_module(f"envctl.spec.{_ELSEWHERE.get(name, 'project')}"), name)
    return found


def find_root(start: Path) -> Path:
    """The nearest directory upwards with an `envctl.yaml`, else with a `.git`, else `start` itself."""
    start = start.resolve()
    upwards = (start, *start.parents)
    for marker in (FILE, ".git"):
        found = next((directory for directory in upwards if (directory / marker).exists()), None)
        if found:
            return found
    return start


def state_directory(root: Path) -> Path:
    """The directory of Pulumi's state of the project at `root`: what `state:` in envctl.yaml says, else `.envctl/state`.

    A file that is wrong counts as none: `load_project` tells what is wrong, and whoever cleans up must get on.
    """
    try:
        text = (root / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    url = stated(root / FILE, "state") if "state" in text or "\\" in text else ""  # YAML takes longer to import than an environment to end
    if not url.startswith("file://"):
        return root / ".envctl" / "state"
    return (root / Path(url.removeprefix("file://")).expanduser()).resolve()


def stated(file: Path, name: str) -> str:
    """What a file says under a name of its own; empty where it says nothing, or is wrong, which is told when it is loaded."""
    from envctl.spec.document import read

    try:
        data = read(file).data
    except SpecError:
        return ""
    return str(data.get(name, "")) if isinstance(data, dict) else ""
