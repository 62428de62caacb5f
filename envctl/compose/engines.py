"""Services that are PostgreSQL or Redis → components of that kind."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envctl.compose.images import LOOKALIKES, kind_of, parse, runs_as_it_is, version_of
from envctl.compose.report import Report
from envctl.compose.storage import mounts_of, relative
from envctl.compose.values import Cursor

_DATABASE = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_INIT = ("/docker-entrypoint-initdb.d", "/docker-entrypoint-preinitdb.d")
_OWN_WAY = "envctl sets up its own {}: what it needs beyond that goes into `settings`"
_READY = "envctl proves in its own way that it is ready"
_TRUST = "no password is asked for within an environment; a connection that gives one works too"
_STAYS = "it stays a service of its image: {}"
_NO_MIGRATION = re.compile(
    rb"(?im)^\s*\\|^\s*(?:create|drop|alter)\s+(?:database|role|user|tablespace|extension|system)\b|\bconcurrently\b|^\s*(?:vacuum|reindex)\b"
    rb"|^\s*(?:begin|commit|rollback)\b\s*(?:transaction|work)?\s*;|^\s*copy\s.+\bfrom\s+(?:stdin|program|')"
)


@dataclass(slots=True)
class Draft:
    """A component in the making."""

    name: str
    service: Cursor
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)  # of the topology, in its order
    needs: list[str] = field(default_factory=list)
    made: dict[Path, str] = field(default_factory=dict)  # files to write: path relative to the stack directory → content


class StaysError(Exception):
    """Why a service is no component of that kind after all."""


def engine_kind(service: Cursor, report: Report) -> str:
    """`postgres`, `kafka`, `redis`, `zookeeper` or (also where the image only looks like one) `service`."""
    image = service.entries().get("image")
    if image is None or service.find("build") or not isinstance(image.value.data, str):
        return "service"
    lookalike = LOOKALIKES.get(parse(image.value.data).repository)
    if lookalike:
        report.note(image, _STAYS.format(lookalike))
    kind = kind_of(image.value.data)
    return kind if kind and _runs_the_server(service, kind, report) else "service"


def _runs_the_server(service: Cursor, kind: str, report: Report) -> bool:
    """Whether it starts what the image is for, not a client of it."""
    if kind in ("kafka", "zookeeper"):
        for each in ("command", "entrypoint"):
            found = service.entries().get(each)
            if found and found.kind != "null":
                report.note(found, _STAYS.format(f"it runs a command of its own in an image of {kind}"))
                return False
    return True


def image_of(service: Cursor, report: Report) -> dict[str, Any]:
    """`version` and, where envctl can run it, `image`."""
    image = service.entries()["image"]
    version, said = version_of(image.text())
    if said:
        report.note(image, said)
    if runs_as_it_is(image.text()):
        return {"version": version, "image": image.text()}
    report.note(image, f"envctl takes an image of its own with version {version}")
    return {"version": version}


def postgres(draft: Draft, environment: Mapping[str, str], stack: Path, report: Report) -> None:
    """Fills in a PostgreSQL.  Raises StaysError where it would be another one."""
    settings = _postgres_settings(draft.service)
    user, database = _database_of(environment)
    further = [name.strip() for name in environment.get("POSTGRES_MULTIPLE_DATABASES", "").split(",") if name.strip()]
    databases = list(dict.fromkeys(name for name in (database, *further) if name != "postgres"))
    for name in (*databases, user):
        if not _DATABASE.match(name):
            raise StaysError(f"{name!r} is no possible name of a database or role")
    draft.fields |= image_of(draft.service, report)
    environment_at = draft.service.find("environment")
    for name, value in (environment_at.entries() if environment_at else {}).items():
        if re.fullmatch(r"(?:POSTGRES|POSTGRESQL)_(?:DB|DATABASE|USER|USERNAME|MULTIPLE_DATABASES)|PGDATA|POSTGRES_HOST_AUTH_METHOD", name):
            value.mark()
        elif "PASSWORD" in name:
            report.tell(value, _TRUST)
    report.reasons[(*draft.service.at, "environment")] = _OWN_WAY.format("PostgreSQL")
    scripts = _init_scripts(draft, databases, report)
    if user not in ("postgres", database):
        _grants(draft, user, databases, scripts, report)
    elif scripts:
        draft.fields["migrations"] = relative(Path(scripts), stack)
    if databases:
        draft.fields["databases"] = databases
    if settings:
        draft.fields["settings"] = settings


def _database_of(environment: Mapping[str, str]) -> tuple[str, str]:
    """User and database, as the images take them from the environment."""
    if any(re.fullmatch(r"(POSTGRES|POSTGRESQL)_(USER|DB|USERNAME|DATABASE)_FILE", name) for name in environment):
        raise StaysError("the names of its user or database are in a file")
    if environment.get("POSTGRESQL_REPLICATION_MODE") or environment.get("PGPORT", "5432") != "5432":
        raise StaysError("it is a replica, or listens on a port of its own")
    user = environment.get("POSTGRES_USER") or environment.get("POSTGRESQL_USERNAME") or "postgres"
    return user, environment.get("POSTGRES_DB") or environment.get("POSTGRESQL_DATABASE") or user


def _postgres_settings(service: Cursor) -> dict[str, str]:
    words = words_of(service, "command")
    if words_of(service, "entrypoint"):
        raise StaysError("it has an entrypoint of its own")
    words = words[1:] if words[:1] == ["postgres"] else words
    settings: dict[str, str] = {}
    while words:
        option = words.pop(0)
        given = option.removeprefix("--") if option.startswith("--") else words.pop(0) if option == "-c" and words else option[2:]
        name, equals, value = given.partition("=")
        if not equals or not option.startswith(("-c", "--")) or name in ("port", "config_file", "hba_file", "data_directory"):
            raise StaysError(f"its command has {option!r}, which is no setting that envctl can take over")
        settings[name.replace("-", "_")] = value
    return settings


def _init_scripts(draft: Draft, databases: list[str], report: Report) -> str | None:
    """The directory of init scripts, where they can be migrations.  Tells of all other volumes but that of the data."""
    found: str | None = None
    for mount in mounts_of(draft.service):
        if mount.target.startswith(_INIT):
            path = (mount.cursor.value.base / mount.source).resolve()
            reason = _no_migrations(mount.target, path, databases) if mount.kind == "bind" else "it is no directory of the project"
            if reason or found:
                report.tell(mount.cursor, f"these scripts are no migrations: {reason or 'there are others already'}; "
                            "what they do goes into SQL files under `migrations:`")
            else:
                found = str(path)
            mount.cursor.mark()
        elif mount.kind == "volume" and mount.target.startswith(("/var/lib/postgresql", "/bitnami/postgresql")):
            mount.cursor.mark()  # an engine's data is kept
        else:
            report.tell(mount.cursor, _OWN_WAY.format("PostgreSQL"))
    return found


def _no_migrations(target: str, path: Path, databases: list[str]) -> str:
    """Why scripts can't be migrations (run once each, in the order of their names, in a transaction, as the owner)."""
    if target not in _INIT[:1] or not path.is_dir():
        return "it is not a directory" if path.exists() else "there are none"
    if len(databases) != 1:
        return f"they would be run in {len(databases)} databases"
    files = sorted(path.iterdir())
    other = [file.name for file in files if file.suffix != ".sql"]
    if other or not files:
        return f"{', '.join(other) or 'nothing'} is not SQL"
    spoilt = next((file.name for file in files if _NO_MIGRATION.search(file.read_bytes())), "")
    return f"{spoilt} needs psql, a superuser, or a transaction of its own" if spoilt else ""


def _grants(draft: Draft, user: str, databases: list[str], scripts: str | None, report: Report) -> None:
    """A role beside the database's owner: it comes with a database of its own, and is let into the others."""
    at = draft.service.find("environment") or draft.service
    report.note(at, f"the role {user} may do everything in {', '.join(databases)}, but is no superuser")
    if scripts:
        report.note(at, f"the scripts in {Path(scripts).name} are not run: migrations are those that let {user} in; copy them there")
    directory = Path("migrations") / draft.name
    for name in databases:
        grants = "\n".join(f"alter default privileges grant all on {what} to {user};" for what in ("tables", "sequences", "functions"))
        draft.made[directory / name / "000_user.sql"] = f"grant all on database {name} to {user};\ngrant all on schema public to {user};\n{grants}\n"
    draft.made[directory / user / "000_user.sql"] = f"-- The database {user} is there because its role is.\n"
    draft.fields["migrations"] = f"{directory.as_posix()}/{{database}}"
    databases.append(user)


def redis(draft: Draft, environment: Mapping[str, str], report: Report) -> None:
    """Fills in a Redis.  Raises StaysError where it would be another one."""
    if words_of(draft.service, "entrypoint"):
        raise StaysError("it has an entrypoint of its own")
    words = words_of(draft.service, "command")
    settings = _redis_settings(words[1:] if words[:1] in (["redis-server"], ["valkey-server"]) else words)
    if any("PASSWORD" in name and "EMPTY" not in name for name in environment):
        raise StaysError("it asks for a password")
    draft.fields |= image_of(draft.service, report)
    variables = draft.service.find("environment")
    if variables and (empty := variables.entries().get("ALLOW_EMPTY_PASSWORD")):
        empty.mark()
    report.reasons[(*draft.service.at, "environment")] = _OWN_WAY.format("Redis")
    for mount in mounts_of(draft.service):
        if mount.kind == "volume" and mount.target in ("/data", "/bitnami/redis/data", "/bitnami/redis", "/bitnami/valkey/data"):
            mount.cursor.mark()
        else:
            report.tell(mount.cursor, _OWN_WAY.format("Redis"))
    if settings:
        draft.fields["settings"] = settings


def _redis_settings(words: list[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    while words:
        option = words.pop(0)
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        name = option.removeprefix("--")
        if not option.startswith("--") or not values:
            raise StaysError(f"its command has {option!r}")
        if name in ("requirepass", "port", "masterauth", "replicaof", "slaveof", "cluster-enabled", "tls-port", "loadmodule", "aclfile"):
            raise StaysError(f"its command has {option!r}, which its clients must know of")
        settings[name] = " ".join(values) if values != [""] else '""'
    return settings


def ready_in_its_own_way(draft: Draft, report: Report) -> None:
    """The healthcheck of an engine: the usual question is envctl's own, all else is told."""
    check = draft.service.find("healthcheck")
    words = " ".join(each.text() for each in check.listed("test")) if check else ""
    if check and not re.search(r"pg_isready|(?:redis|valkey)-cli (?:--raw )?(?:incr )?ping|kafka-(?:topics|broker-api-versions)", words):
        report.tell(check, _READY)


def words_of(service: Cursor, key: str) -> list[str]:
    """The words of a command, which is a list or a text.  Raises SpecError."""
    found = service.find(key)
    if found is None:
        return []
    if found.kind == "list":
        return [each.text() for each in found.items()]
    try:
        return shlex.split(found.text())
    except ValueError as error:
        raise found.error(f"its quotes are wrong: {error}") from error
