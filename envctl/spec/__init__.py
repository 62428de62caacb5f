"""YAML → model: strict, versioned, every error at once with file, line and a hint."""

from __future__ import annotations

from envctl.spec.project import find_root, load_project, scenario_file, scenario_files, seed_file, state_directory
from envctl.spec.scenario import load_scenario
from envctl.spec.seed import load_seed
from envctl.spec.topology import load_topology

__all__ = [
    "find_root", "load_project", "load_scenario", "load_seed", "load_topology", "scenario_file", "scenario_files", "seed_file",
    "state_directory",
]
