"""The Docker engine: how it is found, what it is asked without the SDK, and its errors as ours."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envctl.errors import CapabilityError, EnvctlError, ResourceError
from envctl.toolchain import cache_dir

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from docker import DockerClient

SOCKET = "/var/run/docker.sock"  # where an engine listens, as its own containers see it
_ANSWER_S, _TIMEOUT_S = 3, 120  # for a first answer: every command asks for one; for what an engine does
_HINT = "start it, or set DOCKER_HOST; `docker version` shows whether it answers"


class MissingError(ResourceError):
    """There is no such container, network or volume."""


def host() -> str:
    """Where the engine listens: DOCKER_HOST, the current context of the docker command, or the usual socket; empty where there is none."""
    return os.environ.get("DOCKER_HOST") or _of_context() or (f"unix://{SOCKET}" if Path(SOCKET).exists() else "")


def _of_context() -> str:
    """What the current context says, by the docker command's own files; empty where there is none but the default."""
    settings = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        name = os.environ.get("DOCKER_CONTEXT") or json.loads((settings / "config.json").read_bytes())["currentContext"]
        meta = settings / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(meta.read_bytes())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def ask(method: str, path: str, body: object = None, **query: Any) -> Any:
    """One request of the engine's API, for which the SDK is not imported: that takes longer than looking for an environment, or ending one.

    Raises MissingError and ResourceError for what the engine refuses, CapabilityError when it does not answer.
    """
    from urllib.parse import urlencode

    target = f"/v{version()}{path}?{urlencode({name: json.dumps(value) for name, value in query.items()})}"
    answer, said = _answer(method, target, None if body is None else json.dumps(body), _TIMEOUT_S)
    if answer.status >= 400:
        raise (MissingError if answer.status == 404 else ResourceError)(f"the Docker engine: {_message(said)}")
    return json.loads(said or "null")


def _answer(method: str, target: str, body: str | None, timeout_s: float) -> tuple[HTTPResponse, bytes]:
    from http.client import HTTPConnection, HTTPException

    try:
        with closing(HTTPConnection("localhost")) as connection:
            connection.sock = _connected(timeout_s)
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer, answer.read()
    except (OSError, HTTPException) as error:
        raise _no_answer("the Docker engine", error) from error


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):  # from something before the engine
        return said.decode(errors="replace")


def _connected(timeout_s: float) -> socket.socket:
    """Raises CapabilityError for an engine that is reached in another way than by a socket of this machine."""
    if not (where := host()):
        raise CapabilityError("there is no Docker engine here", hint=_HINT)
    if not where.startswith("unix://"):
        raise CapabilityError(f"the engine at {where} is not on this machine: what it publishes on its loopback can't be reached from here", hint=_HINT)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout_s)
        made.connect(where.removeprefix("unix://"))
    except BaseException:
        made.close()
        raise
    return made


def _no_answer(what: str, error: Exception) -> CapabilityError:
    return CapabilityError(f"{what}: the engine at {host()} does not answer: {error}", hint=_HINT)


@cache
def version() -> str:
    """The version of its API, which shows that it answers.  Raises CapabilityError when there is no engine, or it does not answer."""
    answer, said = _answer("GET", "/_ping", None, _ANSWER_S)
    if found := answer.getheader("Api-Version"):
        return found
    raise _no_answer("the Docker engine", ResourceError(_message(said)))


@cache
def client() -> DockerClient:
    """A connection to the engine.  Raises CapabilityError when there is none, or it does not answer.

    Images can be built by an engine that is elsewhere, for a cluster; environments can't be on it (`problem`).
    """
    known = version() if os.environ.get("DOCKER_HOST", "unix://").startswith("unix://") else ""
    from docker import DockerClient

    if not known:
        with translated("the Docker engine"):
            return DockerClient.from_env(timeout=_TIMEOUT_S)
    return DockerClient(base_url=host(), version=known, timeout=_TIMEOUT_S)


def api() -> Any:
    """The engine's API as it is."""
    return client().api


@cache
def shares_users() -> bool:
    """Whether a user's number is the same here and in its containers: not where the engine is in a virtual machine, or in a user namespace."""
    found = ask("GET", "/info")
    apart = any(word in option for option in found.get("SecurityOptions") or () for word in ("rootless", "userns"))
    return sys.platform == "linux" and found.get("OperatingSystem") != "Docker Desktop" and not apart


def problem() -> tuple[tuple[str, str], ...]:
    """What is wrong with the engine, and what to do."""
    try:
        version()
    except EnvctlError as error:
        return ((error.message, error.hint or _HINT),)
    return ()


def is_here() -> bool:
    """Whether there is an engine to look at.

    Raises CapabilityError for one that does not answer, where environments have been made on it: they may still be there.
    """
    if not host():
        return False
    try:
        version()
    except CapabilityError:
        if _used().exists():
            raise
        return False
    return True


def remember_use() -> None:
    """From now on an engine that does not answer is no empty one."""
    _used().parent.mkdir(parents=True, exist_ok=True)
    _used().touch()


def _used() -> Path:
    return cache_dir() / "docker"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The engine's errors as ResourceError, a lost connection to it as CapabilityError."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        raise ResourceError(f"{what}: {error.explanation or error}") from error
    except (DockerException, RequestException) as error:
        raise _no_answer(what, error) from error
