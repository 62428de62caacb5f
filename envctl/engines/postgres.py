"""PostgreSQL: a primary and any number of synchronous streaming standbys, with a database and its owner for each name.

A commit is acknowledged when it is on the disk of the primary and of a standby (`synchronous_commit = on`), so no
acknowledged write is lost with a node.  The price is declared: while no standby is there, writes wait.

Which node is primary may change: whoever asks for it names all of them.

Everyone in the environment's own network is trusted (no passwords): it has no way in but from its own host's loopback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from envctl.engines.base import Provision, Realisation, Site
from envctl.engines.containers import sealed_container, tag_of, user_of
from envctl.engines.content import digest, made_once
from envctl.engines.nodes import PATH, sealed, tool_mounts, tool_names
from envctl.engines.postgres_start import PATHS, PORT, START
from envctl.engines.provision_postgres import statements
from envctl.engines.sources import migration_directories, tree_copy
from envctl.engines.unprivileged import not_root, run
from envctl.errors import UsageError
from envctl.model.environment import NodeSpec
from envctl.model.topology import AnyComponent, Postgres, Probe
from envctl.toolchain.lookup import find
from envctl.toolchain.tool import Tool

_FORM = 1  # raise it when prepared data directories become different
_HBA = "local all all trust\nhost all all all trust\nhost replication all all trust\n"
_SETTINGS = {
    "listen_addresses": "*",
    "unix_socket_directories": "/tmp",  # noqa: S108 - the node's own
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "sysv",  # a node need not have /dev/shm
    "huge_pages": "off",
    "max_connections": "100",
    "jit": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "wal_keep_size": "512MB",  # so that a standby that was away finds what it missed
    "wal_retrieve_retry_interval": "200ms",
    "wal_sender_timeout": "10s",
    "wal_receiver_timeout": "10s",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class PostgresEngine:
    """One node that writes, `standbys` nodes that follow it; all start at once from the same prepared directory."""

    kind: ClassVar[str] = "postgres"

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """`host`, `port`, `url` (database postgres, as superuser), and for each database `DB.url` and `DB.standby_url`.

        The URLs name all nodes and what is wanted of one (`target_session_attrs`, libpq), so they survive a failover.
        """
        assert isinstance(component, Postgres)
        nodes = ",".join(f"{name}:{PORT}" for name in _names(component))
        found = {"host": f"{component.name}-0", "port": str(PORT)}
        found["url"] = f"postgresql://postgres@{nodes}/postgres?target_session_attrs=read-write"
        for name in component.databases:
            found[f"{name}.url"] = f"postgresql://{name}@{nodes}/{name}?target_session_attrs=read-write"
            found[f"{name}.standby_url"] = f"postgresql://{name}@{nodes}/{name}?target_session_attrs=prefer-standby"
        return found

    def tools(self, component: AnyComponent) -> Mapping[str, str]:
        """See `RunsTools.tools`."""
        assert isinstance(component, Postgres)
        return {"postgres": component.version}

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The nodes and what is made in them; prepares a data directory.

        Raises CapabilityError without this version, SpecError for wrong migrations, ResourceError if preparing fails.
        """
        assert isinstance(component, Postgres)
        if site.packaging == "images":
            containers = tuple(_container(component, site, index) for index in range(1 + component.standbys))
            return Realisation(component.name, site.needs(component), containers, _provision(component, site))
        tool = find("postgres", component.version)
        prepared = _prepared(component, tool, site)
        nodes = tuple(_node(component, tool, prepared, site, index) for index in range(1 + component.standbys))
        return Realisation(component.name, site.needs(component), nodes, _provision(component, site))


def _names(component: Postgres) -> tuple[str, ...]:
    return tuple(f"{component.name}-{index}" for index in range(1 + component.standbys))


def _prepared(component: Postgres, tool: Tool, site: Site) -> Path:
    """An initialised data directory of a server that was shut down cleanly, with the component's roles and databases."""
    key = digest("postgres", _FORM, tool.version, component.databases)

    def make(half: Path) -> None:
        site.progress(f"prepare {component.name}  PostgreSQL {tool.version} data directory, once")
        directory = half / "pg"  # one below, because the server insists on the mode of its own directory
        env = {"PATH": PATH, "TZ": "UTC", "LC_ALL": "C.UTF-8", **tool.env}
        flags = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums")
        run(not_root([tool.programs["initdb"], *flags, "-D", directory]), what="initdb", env=env)
        (directory / "pg_hba.conf").write_text(_HBA)
        if component.databases:
            sql = "\n".join(statements(component.databases)) + "\n"
            single: list[str | Path] = [tool.programs["postgres"], "--single", "-D", directory, "-c", "exit_on_error=on", "postgres"]
            run(not_root(single), what="making roles and databases", env=env, stdin=sql)

    return made_once(site.cache / "prepared" / f"postgres-{key}", make)


def _node(component: Postgres, tool: Tool, prepared: Path, site: Site, index: int) -> NodeSpec:
    name = _names(component)[index]
    data = site.data(name, prepared)
    _check_major(name, tool, data)
    spec = NodeSpec(
        name=name, component=component.name, kind=component.kind, zone=site.zone(component, index), digest="",
        command=("/bin/sh", "-c", START, "sh", *_flags(component, index)),
        env={**_env(component, index, "/data/pg"), "PATH": f"{tool.programs['postgres'].parent}:{PATH}", **tool.env},
        cwd="/data", mounts=tool_mounts(tool), data=data, ports={"postgres": PORT},
        ready=_probe(component, tool), stop_signal="SIGINT", stop_grace_s=10.0, resources=component.resources,
    )
    # Databases that were added are made in the running server: they are no part of the digest.
    return sealed(spec, data=f"postgres-{_FORM}-{tool.version}-{site.seed_key}", names=tool_names(tool))


def _env(component: Postgres, index: int, data: str) -> dict[str, str]:
    peers = [name for name in _names(component) if name != _names(component)[index]]
    return {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PGDATA": data, "ENVCTL_PEERS": " ".join(peers), "ENVCTL_STANDBY": "1" if index else ""}


_PGDATA = "/var/lib/postgresql/data/pg"  # a container begins with no data


def _container(component: Postgres, site: Site, index: int) -> NodeSpec:
    name = _names(component)[index]
    image = component.image or f"postgres:{tag_of(component.version, parts=1)}"
    psql = f'{PATHS}; psql -h /tmp -U postgres -d postgres -XAtqc "$1" | grep -qx t'
    return sealed_container(NodeSpec(
        name=name, component=component.name, kind=component.kind, zone=site.zone(component, index), digest="",
        command=tuple(_flags(component, index)), entrypoint=("sh", "-c", START, "sh"), image=image,
        user=user_of(image, debian="999:999", alpine="70:70"),
        env={**_env(component, index, _PGDATA), "ENVCTL_HBA": _HBA, "RES_OPTIONS": "timeout:1 attempts:1"},  # the name of a node that is down may lead nowhere
        ports={"postgres": PORT}, ready=Probe("exec", command=("timeout", "5", "sh", "-c", psql, "sh", _ready_query(component))),
        # A tiny init: a postmaster that is PID 1 would take orphans that end badly for backends of its own, and restart.
        init=True, stop_signal="SIGINT", stop_grace_s=10.0, resources=component.resources, volumes=("/var/lib/postgresql/data",),
    ))


def _check_major(name: str, tool: Tool, data: Path) -> None:
    """Refuses data of another major version, such as a kept seed's after a change of `version:`: the server could not read it."""
    found = (data / "pg" / "PG_VERSION").read_text().strip()
    if found != tool.version.partition(".")[0]:
        raise UsageError(
            f"{name} would start PostgreSQL {tool.version} with seeded data of PostgreSQL {found}",
            hint="`envctl down`, then this again: data is not kept over a change of `version:`",
        )


def _flags(component: Postgres, index: int) -> list[str]:
    settings = dict(_SETTINGS)
    names = _names(component)
    if component.standbys:
        quoted = ", ".join(f'"{name}"' for name in names)
        settings["synchronous_standby_names"] = f"ANY 1 ({quoted})"  # by name: a logical subscriber is no standby
        peers = [name for name in names if name != names[index]]
        settings["primary_conninfo"] = (
            f"host={','.join(peers)} port={PORT} user=postgres application_name={names[index]} connect_timeout=3"
            + (" target_session_attrs=read-write" if len(peers) > 1 else "")
        )
    settings |= component.settings
    return [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]


def _probe(component: Postgres, tool: Tool) -> Probe:
    psql = f"{tool.programs['psql']} -h /tmp -U postgres -d postgres -XAtqc"
    query = _ready_query(component)
    return Probe("exec", command=("timeout", "5", "/bin/sh", "-c", f'{psql} "$1" | grep -qx t', "sh", query))


def _ready_query(component: Postgres) -> str:
    """The primary, whoever it is now, is ready when a standby follows and a commit gets through; a standby, when it follows."""
    commits = "pg_logical_emit_message(true, 'envctl', 'ready') is not null"
    followed = "exists (select from pg_stat_replication where state = 'streaming' and sync_state in ('sync', 'quorum'))"
    follows = "exists (select from pg_stat_wal_receiver where status = 'streaming')"
    return f"select case when pg_is_in_recovery() then {follows} when {followed} then {commits} end" if component.standbys else f"select {commits}"


def _provision(component: Postgres, site: Site) -> Provision:
    kept = {name: tree_copy(path, site.cache) for name, path in migration_directories(site.topology, component).items()}
    work = {
        "nodes": _names(component),
        "port": PORT,
        "standbys": component.standbys,
        "databases": component.databases,
        "migrations": {name: str(path) for name, (path, _) in kept.items()},
    }
    contents = {name: content for name, (_, content) in kept.items()}
    return Provision(
        component.name,
        ("-m", "envctl.engines.provision_postgres"),
        digest("postgres", _FORM, component.databases, component.standbys, contents, site.seed_key),
        {"ENVCTL_PROVISION": json.dumps(work)},
        tuple(path for path, _ in kept.values()),
    )
