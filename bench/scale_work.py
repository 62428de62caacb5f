"""What an environment is in a cluster, and each piece of work with one that the bench `scale` measures in a process of its own.

`python -m bench.scale_work WORK ENV_ID` does it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = "shop"


def setting(name: str) -> Path:
    """A path that processes of the bench are told."""
    return Path(os.environ[name])


@cache
def realisations() -> Sequence[Any]:
    """The demo's subset, as the engines make it for containers."""
    from envctl import session
    from envctl.spec import load_project, scenario_file
    from envctl.stack.program import realised
    from envctl.substrates.kubernetes import Kubernetes
    from envctl.toolchain import cache_dir

    project = load_project(setting("SCALE_PROJECT"))
    asked = session.Asked(full=True, substrate="kubernetes")
    plan, _ = session.make_plan(project, scenario_file(project, "checkout-under-fire"), asked)
    return realised(plan, Kubernetes(), cache_dir(), "")


def objects_of(env_id: str) -> list[dict[str, Any]]:
    """Everything that one environment is in a cluster."""
    from envctl.substrates.kubernetes import Kubernetes
    from envctl.substrates.kubernetes.identity import Identity
    from envctl.substrates.kubernetes.nodes import node_objects
    from envctl.substrates.kubernetes.objects import environment_objects, notes_object, token_object

    directory = Kubernetes.directory(env_id)
    identity = Identity.of_directory(directory)
    things = [*environment_objects(identity, directory, "localhost/keeper:1"), token_object(identity, "token"), notes_object(identity)]
    for each in realisations():
        for spec in each.nodes:
            things += node_objects(identity, spec, f"localhost/{spec.component}:1")
    return list({(thing["kind"], thing["metadata"]["name"]): thing for thing in things}.values())


def one_more(env_id: str) -> None:
    """Brings up the objects of one environment through the engine; in a process of its own."""
    from envctl.stack import engine
    from envctl.stack_provider.provider import EnvctlProvider
    from envctl.substrates.kubernetes import Kubernetes, clusters, declare
    from envctl.toolchain import cache_dir, lookup

    directory = Kubernetes.directory(env_id)
    clusters.remember(directory)
    named: dict[str, Callable[..., str]] = {
        "own_image": lambda _: "localhost/keeper:1", "image_of": lambda spec, _: f"localhost/{spec.component}:1",  # none is built
    }
    vars(declare).update(named)

    def program() -> None:
        objects = Kubernetes.declarer(directory)
        made: dict[str, list[Any]] = {}
        environment = [*objects.environment()]
        for each in realisations():
            before = [*environment, *(thing for need in each.needs for thing in made.get(need, ()))]
            made[each.component] = [thing for spec in each.nodes for thing in objects.node(spec, before)]

    pulumi = lookup.find("pulumi").programs["pulumi"]
    stack = setting("SCALE_PROJECT") / "stacks/shop"
    engine.update(pulumi, state_of(env_id), EnvctlProvider(), program, cwd=stack, cache=cache_dir())


def one_less(env_id: str) -> None:
    """Ends one environment and proves that nothing is left of it; in a process of its own."""
    from envctl.stack.operations import tear_down

    tear_down(env_id, project=setting("SCALE_PROJECT"), substrate="kubernetes", substrates=Answered())


def state_of(env_id: str) -> Any:
    from envctl.spec import state_directory
    from envctl.stack.state import State

    return State(state_directory(setting("SCALE_PROJECT")), PROJECT, env_id)


class Answered:
    """The substrate, with keepers whose answer is known: those whose name ends with `x` have run out."""

    def names(self) -> Sequence[str]:
        return ("kubernetes",)

    def __call__(self, name: str) -> Any:  # noqa: ARG002 - there is one
        from envctl.model.environment import Environment
        from envctl.substrates.kubernetes import Kubernetes

        class Reach:
            def __init__(self, directory: Path) -> None:
                self._directory = directory

            def environment(self) -> Environment:
                expires = 0.0 if self._directory.name.endswith("x") else time.time() + 3600
                return Environment(self._directory.name, PROJECT, "kubernetes", self._directory, "", (), {}, expires)

        class Known(Kubernetes):
            attach = staticmethod(Reach)  # type: ignore[assignment]

        return Known


def pods_each() -> int:
    """Pods of one environment: its nodes and its keeper."""
    return 1 + sum(len(each.nodes) for each in realisations())


def collect(_: str) -> None:
    """`envctl gc`, in a process of its own."""
    from envctl.lease import collect as collected

    _found, removed = collected(setting("SCALE_PROJECT"), substrates=Answered())
    if len(removed) != 1:
        raise RuntimeError(f"gc removed {len(removed)} environments, not the one that had run out")


if __name__ == "__main__":
    {"one_more": one_more, "one_less": one_less, "collect": collect}[sys.argv[1]](sys.argv[2])
