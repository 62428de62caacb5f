"""The runner as a command sees it: started inside the environment, followed, cancelled, and asked why it failed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envctl import plugins
from envctl.errors import EnvctlError, Exit, ResourceError
from envctl.model.environment import Environment
from envctl.runner.follow import INDENT, Follower, Shown
from envctl.substrates.base import LOST, Process, Reach

KILLED = 128  # exit statuses above say which signal ended a process


def run_inside(environment: Environment, directory: Path, line: Shown, cancelled: Callable[[], bool]) -> int:
    """Runs what is prepared in a run's directory to its end, or until it is `cancelled`; returns the runner's exit status.

    The record, the nodes' logs and the runner's own are in the directory afterwards, whatever happened.
    """
    reach = plugins.load("envctl.substrates", environment.substrate).attach(environment.directory)
    argv = [*reach.own, "-m", "envctl.runner", str(directory), environment.substrate, str(environment.directory)]
    reach.show(directory)
    lifeline, ours = os.pipe()  # a byte cancels the run, and so does its end: when we die, however we die
    try:
        with (directory / "runner.log").open("wb") as log, reach.mirrored(directory):
            process = reach.popen(None, argv, stdin=lifeline, stdout=log, stderr=log, job="run")
            if process.note:
                line.note(f"{INDENT}{process.note}")
            return Follower(directory, line).until_ended(_Cancelling(process, ours, cancelled))
    finally:
        os.close(lifeline)
        os.close(ours)
        _keep_logs(reach, environment, directory)


@dataclass(slots=True)
class _Cancelling:
    """Polls the runner and passes a cancellation on, once: a pipe keeps it for a runner that is still starting."""

    process: Process
    lifeline: int
    cancelled: Callable[[], bool]
    told: bool = False

    def __call__(self) -> int | None:
        if self.cancelled() and not self.told:
            self.told = True
            with suppress(BrokenPipeError):
                os.write(self.lifeline, b"c")
        return self.process.poll()


def _keep_logs(reach: Reach, environment: Environment, directory: Path) -> None:
    """Copies every node's log into the run's directory; an environment that has gone keeps nothing from us."""
    (directory / "logs").mkdir(exist_ok=True)
    for node in environment.nodes:
        with suppress(EnvctlError, OSError), (directory / "logs" / f"{node.name}.log").open("w", encoding="utf-8") as kept:
            kept.writelines(f"{line}\n" for line in reach.log(node.name))


def why(directory: Path, status: int) -> EnvctlError:
    """Why the runner ended with that status: its own error, with its exit code, where it left one."""
    left = directory / "error.json"
    if left.exists():
        said = json.loads(left.read_text(encoding="utf-8"))
        error = EnvctlError(said["message"], hint=said["hint"])
        error.exit_code = Exit(said["exit_code"])
        return error
    tail = "\n".join((directory / "runner.log").read_text(errors="replace").splitlines()[-5:])
    if status == LOST:
        return ResourceError(f"the connection to the run was lost before its first event\n{tail}".rstrip(), hint="run the same command again")
    if status > KILLED:
        return ResourceError(f"the runner was killed before its first event (status {status})\n{tail}".rstrip(), hint="run the same command again")
    return EnvctlError(f"the runner ended with status {status}\n{tail}", hint=f"its record is in {directory}")
