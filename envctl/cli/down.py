"""`envctl down`: removes environments and proves that nothing is left."""

from __future__ import annotations

from pathlib import Path

import click

from envctl.cli.environments import answer, environment_argument, output_option
from envctl.errors import EnvctlError, NoEnvironmentError, UsageError


@click.command()
@environment_argument
@click.option("--all", "every", is_flag=True, help="Every environment of this machine that no command works on.")
@click.option("--yes", is_flag=True, help="With --all: also those that a command works on.")
@output_option
def down(*, environment: str | None, every: bool, yes: bool, output: str) -> None:
    """Remove the environment ENV (this checkout's by default) and prove by a census that nothing is left.

    Works where its Pulumi state is lost or its cell is dead, and says so.
    """
    if every and environment:
        raise UsageError("--all and the name of an environment exclude each other")
    from envctl.lease import ids_of, whereabouts
    from envctl.spec import find_root

    root = find_root(Path.cwd())
    ids = [environment] if environment else list(ids_of(root))
    found = _every(also_used=yes) if every else [(env_id, whereabouts(env_id)) for env_id in ids]
    removed, failures = [], []
    for env_id, directory in found:
        try:
            removed.append(_one(env_id, directory, root))
        except EnvctlError as error:  # the others are removed all the same
            failures.append(error)
    if removed:  # of this checkout, any one will do
        failures = [error for error in failures if not isinstance(error, NoEnvironmentError)]
    text = "\n".join(f"{each['id']}: nothing left" for each in removed) or ("nothing was there" if every else "")
    if removed or not failures:
        answer("down/v1", {"removed": removed}, text, output)
    if failures:
        raise _joined(failures)


def _every(*, also_used: bool) -> list[tuple[str, Path]]:
    """All environments of this machine; those that a command works on only when that is wanted."""
    from envctl.lease import in_use, survey

    found = []
    for seen in sorted(survey(), key=lambda seen: seen.id):
        if not also_used and (owner := in_use(seen)):
            click.echo(f"{seen.id} is kept: {owner} is working on it (--yes removes it, too)", err=True)
        else:
            found.append((seen.id, seen.directory))
    return found


def _one(env_id: str, directory: Path | None, root: Path) -> dict[str, object]:
    from envctl.cli.console import Console
    from envctl.stack import lock, tear_down

    with Console().step("down") as line:
        line.update(env_id)
        envs = lock.environments_directory(directory)
        if lock.is_held(envs, f"{env_id}.run"):
            line.note(f"{env_id}: {lock.owner(envs, f'{env_id}.run')} was working on it")
        done = tear_down(env_id, directory=directory, project=root, progress=line.update)
        for note in done.notes:
            line.note(f"{env_id}: {note}")
        line.done(f"{env_id}: nothing left")
    return {"id": env_id, "notes": done.notes}


def _joined(failures: list[EnvctlError]) -> EnvctlError:
    if len(failures) == 1:
        return failures[0]
    worst = max(failures, key=lambda error: error.exit_code)
    return type(worst)("\n".join(error.message for error in failures), hint=worst.hint)
