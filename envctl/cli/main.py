"""The command `envctl`: finds the verb, runs it, turns errors into a message and an exit code."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from envctl import __version__
from envctl.errors import EnvctlError, Exit, of_system

# verb → (module, attribute, one line for `envctl --help`); a verb is imported only when it is used, because start-up time counts
VERBS: dict[str, tuple[str, str, str]] = {
    "ci": ("ci", "ci", "Plan, bring up, seed, run, judge, report and tear down, in one go."),
    "plan": ("plan", "plan", "Show which components a run needs, and why."),
    "up": ("up", "up", "Bring the environment up, or bring it up to date."),
    "down": ("down", "down", "Remove the environment and prove that nothing is left."),
    "status": ("status", "status", "Show the nodes of an environment."),
    "list": ("list_", "list_", "Show all environments on this machine."),
    "logs": ("logs", "logs", "Show or follow the output of nodes."),
    "exec": ("exec_", "exec_", "Run a command inside a node."),
    "seed": ("run", "seed", "Load a seed into the environment."),
    "run": ("run", "run", "Run a scenario against the environment."),
    "shrink": ("shrink", "shrink", "Shrink a failing run or scenario to the smallest that still fails."),
    "judge": ("judge", "judge", "Judge a recorded run again, offline."),
    "check": ("check", "check", "Judge a history of operations, from whatever tool."),
    "report": ("report", "report", "Write the report of a recorded run again."),
    "faults": ("faults", "faults", "Show the kinds of faults and where each works, or what a run's faults did."),
    "gc": ("gc", "gc", "Remove environments that have expired or died."),
    "init": ("init", "init", "Write a commented configuration and a small system to start from, or import Compose files."),
    "setup": ("setup", "setup", "Get the tools that are missing into the cache."),
    "doctor": ("doctor", "doctor", "Explain what this machine can do, and what is missing."),
    "schema": ("schema", "schema", "Print the JSON Schema of a file format."),
}


UNREAD = 128 + signal.SIGPIPE  # as of every command whose output nobody reads any more


class UnreadError(Exception):
    """The reader of our output has gone."""


class Verbs(click.Group):
    """The group of verbs; looks a verb up in `VERBS` and imports it on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All verbs, in the order of a user's day."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The verb's command, or None for an unknown one."""
        if name not in VERBS:
            return None
        module, attribute, _ = VERBS[name]
        command: click.Command = getattr(importlib.import_module(f"envctl.cli.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """As click does it, which would call a reader that has gone an error of ours."""
        try:
            answer: object = super().invoke(ctx)
            if sys.stdout:  # None where the command was started without one
                sys.stdout.flush()
        except BrokenPipeError as error:
            if _is_unread():
                raise UnreadError from error
            raise  # of another connection
        return answer

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Lists the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in VERBS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest verb in the message for an unknown one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from envctl.plugins import nearest

            ctx.fail(f"no such command {args[0]!r}; {nearest(args[0], tuple(VERBS))}")
        return super().resolve_command(ctx, args)


def _is_unread() -> bool:
    """Whether nobody holds the other end of our output any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="envctl")
@click.option("--debug", is_flag=True, help="Show the stack trace of errors.")
@click.option("-C", "directory", type=click.Path(exists=True, file_okay=False), help="Work in this directory instead.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool, directory: str | None) -> None:
    """Production-shaped environments: up in seconds, hurt on purpose, judged by evidence, removed without a trace."""
    ctx.obj = debug
    if directory:
        os.chdir(directory)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; the one handler of errors."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(args=arguments, prog_name="envctl", standalone_mode=False)
    except EnvctlError as error:
        sys.exit(explain(error, debug="--debug" in arguments))
    except click.exceptions.Abort:
        sys.exit(_say("cancelled", Exit.CANCELLED))
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"\nhint: `{context.command_path} --help` shows how it is called" if context else ""
        sys.exit(_say(f"error: {error.format_message()}{hint}", Exit.USAGE))
    except KeyboardInterrupt:  # outside of click, which ends the line where the terminal has written ^C
        sys.exit(_say("\ncancelled", Exit.CANCELLED))
    except UnreadError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more to say, also not by Python's last flush
        sys.exit(UNREAD)
    except OSError as error:
        sys.exit(explain(of_system(error), cause=error, debug="--debug" in arguments))
    sys.exit(code if isinstance(code, int) else Exit.PASS)


def explain(error: EnvctlError, *, cause: BaseException | None = None, debug: bool | None = None) -> int:
    """Says on standard error what is wrong, and where if `debug` (None: as the command line says); returns the exit code."""
    context = click.get_current_context(silent=True)
    if debug or (debug is None and context is not None and context.find_root().obj):
        traceback.print_exception(cause or error)
    hint = f"\nhint: {error.hint}" if error.hint else ""
    return _say(f"error: {error.message}{hint}", error.exit_code)


def _say(message: str, code: Exit) -> int:
    from envctl.report.words import inert_lines

    print(inert_lines(message), file=sys.stderr)  # noqa: T201 — standard error is where people look
    return int(code)


if __name__ == "__main__":
    main()
