"""The files of Pulumi's state for one environment: made, inspected and dropped without a call of the command line.

Layout of the `file://` backend (Pulumi 3): `.pulumi/stacks/PROJECT/STACK.json` is the checkpoint, `.pulumi/locks/…` holds one
file for each process at work, `.pulumi/{history,backups}/PROJECT/STACK` the past.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from envctl.errors import ResourceError, UsageError
from envctl.waiting import until

ORPHAN_WAIT_S = 15.0
HALF_WRITTEN_S = 3.0  # a lock that stays half-written for so long has no living writer
COMPRESSED = "{} is compressed, which envctl does not read"
OURS = ("envctl:", "pulumi:pulumi:Stack", "pulumi:providers:envctl")


def pulumi_project(stack_directory: Path) -> str:
    """The `name` in a stack's Pulumi.yaml.  Raises UsageError when the directory is no Pulumi project."""
    import yaml

    file = stack_directory / "Pulumi.yaml"
    try:
        name = yaml.safe_load(file.read_text())["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise UsageError(f"{file} is missing or has no name", hint="a stack is a Pulumi project: `envctl init` shows one") from None
    if not (stack_directory / "__main__.py").exists():
        raise UsageError(f"{stack_directory / '__main__.py'} is missing", hint="it calls envctl.stack.deploy()")
    return str(name)


@dataclass(frozen=True, slots=True)
class State:
    """Where the state of one stack lives.  `root` is the directory of the backend."""

    root: Path
    project: str
    stack: str

    @property
    def url(self) -> str:
        """The backend's URL."""
        return f"file://{self.root}"

    @property
    def config(self) -> Path:
        """The stack's configuration; beside the state, so that the user's repository stays clean."""
        return self.root / "config" / f"Pulumi.{self.stack}.yaml"

    @property
    def checkpoint(self) -> Path:
        """What Pulumi believes there is."""
        return self.root / ".pulumi" / "stacks" / self.project / f"{self.stack}.json"

    @property
    def _locks(self) -> Path:
        return self.root / ".pulumi" / "locks" / "organization" / self.project / self.stack

    def ensure(self) -> None:
        """Makes the empty stack when there is none, as `pulumi stack init` does (which costs half a second).

        Pulumi does not write these files whole; what a killed engine left half-written is replaced by the one before, or, since
        everything of ours is adopted, by an empty one.  Raises ResourceError for a compressed one, and where others use
        the layout before projects, which Pulumi would no longer see.
        """
        if compressed := self._compressed():
            raise ResourceError(COMPRESSED.format(compressed), hint="unset PULUMI_DIY_BACKEND_GZIP, then `pulumi refresh` writes it anew")
        with _alone(self.root):
            meta = self.root / ".pulumi" / "meta.yaml"
            if not meta.exists() and any(self.root.glob(".pulumi/stacks/*.json*")):
                raise ResourceError(f"{self.root} holds stacks in Pulumi's old layout", hint="`pulumi state upgrade`, or name another `state:`")
            self.root.mkdir(mode=0o700, exist_ok=True)  # values of services' `env` stand in it as they are
            self.config.parent.mkdir(parents=True, exist_ok=True)
            self._mark.touch()  # before there is anything to be recognised
            if not meta.exists():
                _publish(meta, "version: 1\n")
            _drop_unless_json(self._attributes)
            if _read_json(self.checkpoint) is None:
                empty = {"version": 3, "checkpoint": {"stack": f"organization/{self.project}/{self.stack}", "latest": None}}
                _publish(self.checkpoint, json.dumps(_read_json(self._backup) or empty))

    @property
    def _backup(self) -> Path:
        return self.checkpoint.with_name(f"{self.stack}.json.bak")

    @property
    def _attributes(self) -> Path:
        return self.checkpoint.with_name(f"{self.stack}.json.attrs")

    @property
    def _mark(self) -> Path:
        """Says that envctl has worked on this stack; `@` is in no name of Pulumi's."""
        return self.config.with_name(f"{self.project}@{self.stack}")

    def _compressed(self) -> Path | None:
        """What stands in the checkpoint's place; beside one, the backup of a compressed one is only the past."""
        whole, backup = (self.checkpoint.with_name(f"{self.stack}.json.gz{form}") for form in ("", ".bak"))
        return whole if whole.exists() else backup if backup.exists() and not self.checkpoint.exists() else None

    def objection(self) -> str:
        """Why the stack must not be dropped: it can't be read, or may be somebody else's; empty where neither is so.

        Other projects may use the same backend.  Ours is what bears our mark, or holds the environment of its name, as a plain
        `pulumi up` leaves it.
        """
        if compressed := self._compressed():
            return COMPRESSED.format(compressed)
        listed = _listed(self.checkpoint) or _listed(self._backup)
        if listed is None and (self.checkpoint.exists() or self._backup.exists()):
            return f"{self.checkpoint} can't be read"
        environments = [each["urn"] for each in (listed or ([], []))[0] if each["type"] == "envctl:index:Environment"]
        if self._mark.exists() or any(urn.endswith(f"::{self.stack}") for urn in environments):
            return ""
        return f"{self.checkpoint} is not envctl's"

    def resources(self) -> list[dict[str, Any]]:
        """The resources that the checkpoint lists; empty when there is no state or it can't be read: see `objection`."""
        return (_listed(self.checkpoint) or _listed(self._backup) or ([], []))[0]

    def foreign(self) -> list[str]:
        """URNs of resources, also of those under way, that are not envctl's own; they need the engine to be destroyed."""
        resources, pending = _listed(self.checkpoint) or _listed(self._backup) or ([], [])
        return [each["urn"] for each in (*resources, *pending) if not _is_ours(each)]

    def substrates(self) -> set[str]:
        """The substrates that its resources are on."""
        resources, pending = _listed(self.checkpoint) or _listed(self._backup) or ([], [])
        return {str(name) for each in (*resources, *pending) if (name := (each.get("inputs") or {}).get("substrate"))}

    def forget_pending(self) -> None:
        """Drops what a killed engine noted as under way with resources of ours: they are adopted, whatever became of it."""
        raw = _read_json(self.checkpoint) or {}
        latest = (raw.get("checkpoint") or {}).get("latest") or {}
        pending = latest.get("pending_operations") or []
        others = [each for each in pending if not _is_ours(each["resource"])]
        if len(others) < len(pending):
            latest["pending_operations"] = others
            _publish(self.checkpoint, json.dumps(raw))

    def below_ours(self) -> bool:
        """Whether other providers' resources are in it that belong to the environment, below a component of ours."""
        return any(map(_is_below_ours, self.resources()))

    def forget_below_ours(self) -> None:
        """Drops those: with an environment that has ended they have ended, and what is believed to be there would not be made again."""
        raw = _read_json(self.checkpoint) or {}
        latest = (raw.get("checkpoint") or {}).get("latest") or {}
        known = latest.get("resources") or []
        gone = {each["urn"] for each in known if _is_below_ours(each)}
        latest["resources"] = [_without(each, gone) for each in known if each["urn"] not in gone]
        _publish(self.checkpoint, json.dumps(raw))

    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self.checkpoint.exists()

    def drop(self) -> None:
        """Forgets the stack, as `pulumi stack rm --force`: for when it is ours and everything in it is known to be gone.

        The last stack takes the backend with it, where that holds nothing else.
        """
        for path in self.leftovers():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        with _alone(self.root):
            _prune(self.root / ".pulumi")
            for empty in (self.config.parent, self.root):
                with suppress(OSError):
                    empty.rmdir()

    def leftovers(self) -> list[Path]:
        """Every file and directory of this stack."""
        beside = [path for form in ("", ".") for path in self.checkpoint.parent.glob(f"{form}{self.stack}.json*")]
        past = (self.root / ".pulumi" / kind / self.project / self.stack for kind in ("history", "backups"))
        return [path for path in (*beside, *past, self._locks, self.config, self._mark) if path.exists()]

    def break_stale_locks(self) -> list[int]:
        """Removes the locks of dead processes; returns the process ids of living holders.

        A lock names its process; it is dead when no such process exists, or when the process of that id began after the lock.
        """
        living = []
        for path, lock in self._read_locks():
            pid = int(lock.get("pid", 0))
            ours = lock.get("hostname") == os.uname().nodename
            if (ours and not _holds(pid, str(lock.get("timestamp", "")))) or (not lock and _age_s(path) > HALF_WRITTEN_S):
                path.unlink(missing_ok=True)
            else:
                living.append(pid)
        return living

    def settle_locks(self, progress: Callable[[str], None]) -> None:
        """Breaks the locks of dead processes and waits for living ones.  Raises ResourceError when they go on."""
        living = self.break_stale_locks()
        if not living:
            return
        progress(f"waits for the Pulumi engine (process {living[0]})")
        if not until(lambda: not self.break_stale_locks(), ORPHAN_WAIT_S):
            living = self.break_stale_locks()
            raise ResourceError(
                f"a Pulumi engine (process {', '.join(map(str, living))}) is working on {self.stack}", hint="wait, or end it"
            )

    def _read_locks(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in self._locks.glob("*.json"):
            try:
                yield path, json.loads(path.read_text())
            except FileNotFoundError:
                continue
            except ValueError:  # half-written: its writer was killed or is about to finish
                yield path, {}


def states_of(stack: str, roots: Iterable[Path]) -> tuple[State, ...]:
    """The states of a stack (`*`: of all) below some backends' directories, whichever of its files is all that a killed command has left."""
    forms = (f"{stack}.json*", f".{stack}.json*")
    found: list[State] = []
    for root in roots:
        files = [path for form in forms for path in sorted(root.glob(f".pulumi/stacks/*/{form}"))]
        found += [State(root, path.parent.name, path.name.lstrip(".").partition(".json")[0]) for path in files]
        marks = [path.name.rpartition("@") for path in sorted(root.glob(f"config/*@{stack}"))]
        found += [State(root, project, name) for project, _, name in marks]
    return tuple(dict.fromkeys(found))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Meanwhile nobody else makes the first stack of the backend, or removes the last one."""
    root.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_ours(resource: dict[str, Any]) -> bool:
    """Of a type of ours, or below a component of ours: the types of all that a resource is below stand in its URN."""
    return str(resource["type"]).startswith(OURS) or "::envctl:" in str(resource["urn"])


def _is_below_ours(resource: dict[str, Any]) -> bool:
    """Made by another provider; that provider itself stays."""
    return not str(resource["type"]).startswith((*OURS, "pulumi:providers:")) and "::envctl:" in str(resource["urn"])


def _without(resource: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """A resource that no longer refers to some others: Pulumi refuses a state with references to nothing."""
    kept = {name: value for name, value in resource.items() if name != "deletedWith" or value not in gone}
    if "dependencies" in kept:
        kept["dependencies"] = [urn for urn in kept["dependencies"] if urn not in gone]
    if "propertyDependencies" in kept:
        kept["propertyDependencies"] = {name: [urn for urn in urns or () if urn not in gone] for name, urns in kept["propertyDependencies"].items()}
    return kept


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when there is none, or only half of one."""
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return raw if isinstance(raw, dict) else None


def _listed(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """The resources of a checkpoint, and those under way; None when there is none, or none that can be read."""
    try:
        latest = json.loads(path.read_text())["checkpoint"].get("latest") or {}
        resources = [*(latest.get("resources") or ())]
        pending = [each["resource"] for each in latest.get("pending_operations") or ()]
        readable = all(isinstance(each[key], str) for each in (*resources, *pending) for key in ("urn", "type"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (resources, pending) if readable else None


def _prune(backend: Path) -> None:
    """Removes the directories that hold no file, and the backend itself when nothing but its version is in it, be it half-written by who was killed."""
    for kind in ("stacks", "history", "backups", "locks"):
        for directory, _, _ in os.walk(backend / kind, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
    version = [*(backend / name for name in ("meta.yaml", "meta.yaml.attrs", "meta.yaml.bak", "meta.yaml.bak.attrs")), *backend.glob(".meta.yaml.*")]
    if backend.exists() and set(backend.iterdir()) <= set(version):
        for path in version:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            backend.rmdir()


def _drop_unless_json(path: Path) -> None:
    if _read_json(path) is None:
        path.unlink(missing_ok=True)


def _publish(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _holds(pid: int, since: str) -> bool:
    """Whether process `pid` exists and is not younger than the lock."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[18])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        written = datetime.fromisoformat(since).timestamp()
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while it is read
        return False
    except ValueError:
        return True  # unreadable time: believe the process
    if state in "ZX":  # dead, and its new parent has not noticed: some machines' first process is slow to
        return False
    began = datetime.now().astimezone().timestamp() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    return began <= written + 1.0
