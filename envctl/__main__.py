"""The command `envctl`, also `python -m envctl`: answers Ctrl-C from here on, because importing what does the work takes a while."""

from __future__ import annotations

import os
import signal
import sys

CANCELLED = 8  # `Exit.CANCELLED`, which is not imported yet


def main() -> None:
    """Runs the command line and exits."""
    signal.signal(signal.SIGINT, _end)
    from envctl.cli.main import main as command_line

    sys.unraisablehook = _again
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    except KeyboardInterrupt:
        _end()
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        _end()  # it hit the making of a class, of which Python before 3.12 makes this
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended, and its exit code stands: also while Python takes itself apart


def _end(*_: object) -> None:
    """Ends the process at once: before a command has begun there is nothing to undo."""
    os.write(2, b"\ncancelled\n")  # the terminal has written ^C
    os._exit(CANCELLED)


def _again(lost: sys.UnraisableHookArgs) -> None:
    """Repeats an interrupt that hit where Python can only print an exception, such as the callbacks of its import locks."""
    from threading import Timer

    from envctl.errors import CancelledError

    if issubclass(lost.exc_type, KeyboardInterrupt | CancelledError):
        Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
