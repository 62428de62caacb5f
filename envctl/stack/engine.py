"""One call of the Pulumi engine, with our program and our provider attached to it.

The Automation API makes four calls of the command line for one update (select, up, output, history), each 0.35 s; the
one that matters is made here, with the same language server as the Automation API's and the provider attached.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from envctl.errors import CancelledError, ResourceError
from envctl.stack.state import State
from envctl.stack_provider.ground import begin
from envctl.stack_provider.provider import EnvctlProvider
from envctl.stack_provider.server import serve
from envctl.waiting import unheard

T = TypeVar("T")
PARALLEL = 64  # more than any environment has nodes that wait at the same time; waiting costs nothing
CANCEL_S = 60.0  # how long an engine that was told to end may take to end what it has begun


def environment_variables(state: State, cache: Path) -> dict[str, str]:
    """The environment of `pulumi`: our state, nothing from the network, nothing asked."""
    return {
        "PULUMI_CONFIG_PASSPHRASE": "",  # nothing of ours is encrypted: only its owner may read the state; a user's own settings win
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        **os.environ,
        "PULUMI_BACKEND_URL": state.url,
        "PULUMI_HOME": str(cache / "pulumi"),  # as `toolchain.lookup.pulumi_home` has it
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        "PULUMI_DIY_BACKEND_GZIP": "false",
        "PULUMI_DIY_BACKEND_NO_LEGACY_WARNING": "true",
        "PULUMI_DISABLE_CI_DETECTION": "true",
    }


@contextmanager
def attached(provider: EnvctlProvider) -> Iterator[int]:
    """Serves `provider` in a thread of its own; gives the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="pulumi-provider")
    thread.start()
    server, port = asyncio.run_coroutine_threadsafe(serve(provider), loop).result()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _attached(port: int) -> dict[str, str]:
    """What has the engine speak to our provider, and to those that the user has attached."""
    name = "PULUMI_DEBUG_PROVIDERS"
    return {name: ",".join((*filter(None, [os.environ.get(name)]), f"envctl:{port}"))}


class Threads(futures.ThreadPoolExecutor):
    """Threads that never keep the process from ending: a program that nobody waits for any more may still wait for a build."""

    def submit(self, fn: Callable[..., T], /, *words: Any, **named: Any) -> futures.Future[T]:
        """In a thread of its own."""
        return begin(lambda: fn(*words, **named))


@contextmanager
def hosted(program: Callable[[], None]) -> Iterator[int]:
    """Serves `program` as a language host; gives the port."""
    import grpc
    from pulumi.automation._server import LanguageServer
    from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
    from pulumi.runtime.proto import language_pb2_grpc

    server = grpc.server(Threads(), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0)


def update(
    pulumi: Path, state: State, provider: EnvctlProvider, program: Callable[[], None], *, cwd: Path, cache: Path
) -> None:
    """Makes the world as the program says.

    Raises the first error of the provider, or ResourceError with what the engine said; CancelledError on SIGINT.
    """
    state.ensure()
    state.forget_pending()
    with unheard() as hear, attached(provider) as provider_port, hosted(program) as program_port:
        arguments = [
            "up", "--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress", "--suppress-permalink",
            "--skip-plugin-pre-install", f"--parallel={PARALLEL}", f"--client=127.0.0.1:{program_port}",
            "--exec-kind=auto.inline",
        ]
        variables = {**environment_variables(state, cache), **_attached(provider_port)}
        call(pulumi, state, arguments, provider, variables=variables, cwd=cwd, hear=hear)


def destroy(pulumi: Path, state: State, provider: EnvctlProvider, *, cwd: Path, cache: Path) -> None:
    """Destroys everything in the state, resources of other providers too.  Raises as `update`."""
    with unheard() as hear, attached(provider) as port:
        arguments = ["destroy", "--yes", "--skip-preview", "--suppress-progress", f"--parallel={PARALLEL}"]
        variables = {**environment_variables(state, cache), **_attached(port)}
        call(pulumi, state, arguments, provider, variables=variables, cwd=cwd, hear=hear)


def call(
    pulumi: Path, state: State, arguments: Sequence[str], provider: EnvctlProvider, *, variables: dict[str, str], cwd: Path,
    hear: Callable[[], None],
) -> None:
    """Runs the engine on the stack; a SIGINT to us is passed on once, and the engine's orderly end is awaited for CANCEL_S.

    `hear` lets interrupts be heard again (see `unheard`), once the engine is known.
    """
    argv = [
        *_dies_with_us(), str(pulumi), *arguments, f"--stack={state.stack}", f"--config-file={state.config}", "--non-interactive", "--color=never",
    ]
    engine = subprocess.Popen(
        argv, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", process_group=0,
    )
    cancelled, said = False, ""
    while True:
        try:
            hear()
            said, _ = engine.communicate(timeout=CANCEL_S if cancelled else None)
            break
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)  # with its plug-ins; its lock and what it had begun are taken up by the next update or end
            engine.wait()
            break
        except (KeyboardInterrupt, CancelledError):  # by default, or as a session's own handler says it
            if engine.poll() is None:
                engine.send_signal(signal.SIGTERM if cancelled else signal.SIGINT)
            cancelled = True
    if cancelled:
        raise CancelledError("cancelled")
    if engine.returncode:
        raise _failure(engine.returncode, provider, said)


def _dies_with_us() -> list[str]:
    """A prefix that has the kernel kill the engine when we die: without its provider it could only fail, late and under a lock."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _failure(status: int, provider: EnvctlProvider, said: str) -> Exception:
    if status < 0:
        return ResourceError(
            f"the Pulumi engine was killed ({signal.Signals(-status).name})", hint="run the same command again: it continues"
        )
    if provider.tally.failures:
        return provider.tally.failures[0]
    return ResourceError(f"the Pulumi engine failed\n{said.strip()}")
