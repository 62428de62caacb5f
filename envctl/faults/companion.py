"""A process of ours in a node's network namespace that is told what to do in lines, and answers in lines."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from envctl.errors import DeadlineError, ResourceError
from envctl.substrates.base import Reach

ANSWER_S = 30.0
END_S = 5.0


class Companion:
    """Runs a module of envctl in a node's network (node None: beside the nodes); a context manager that always ends it.

    Its standard input closes when it is to end, or when we die.
    """

    def __init__(self, reach: Reach, node: str | None, *argv: str, env: Mapping[str, str] | None = None) -> None:
        self._node, self._text = node or "what is beside the nodes", b""
        stdin, self._tell = os.pipe()
        self._listen, stdout = os.pipe()
        try:
            self._process = reach.popen(node, [*reach.own, "-m", *argv], where="netns" if node else "node", env=env, stdin=stdin, stdout=stdout)
        except BaseException:
            os.close(self._tell)
            os.close(self._listen)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)

    def line(self, timeout_s: float = ANSWER_S) -> str:
        """The next line that it says; empty when it has ended.  Raises ResourceError when it is silent for too long."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._text:
            if not select.select([self._listen], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ResourceError(f"a process of ours in {self._node} does not answer")
            part = os.read(self._listen, 1 << 16)
            if not part:
                return ""
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> None:
        """Says a line to it.  Raises ResourceError when it has ended."""
        if self._process.poll() is not None:
            raise ResourceError(f"a process of ours in {self._node} has ended")
        try:
            os.write(self._tell, f"{line}\n".encode())
        except BrokenPipeError as error:
            raise ResourceError(f"a process of ours in {self._node} has ended") from error

    def ask(self, line: str) -> Any:
        """Says a line to it and reads its answer, which is JSON.  Raises ResourceError when it has ended."""
        self.tell(line)
        if not (said := self.line()):
            raise ResourceError(f"a process of ours in {self._node} has ended")
        return json.loads(said)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `end`."""
        self.end()

    def end(self) -> None:
        """Lets it end in good order, or kills it.  Once."""
        os.close(self._tell)
        try:
            self._process.wait(END_S)
        except DeadlineError:
            with suppress(ResourceError):
                self._process.signal(signal.SIGKILL)
        finally:
            os.close(self._listen)
