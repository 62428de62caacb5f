"""Redis: one server; what it holds may be lost with it, as with any cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from envctl.engines.base import Realisation, Site
from envctl.engines.containers import sealed_container, tag_of, user_of
from envctl.engines.nodes import PATH, sealed, tool_mounts, tool_names
from envctl.model.environment import NodeSpec
from envctl.model.topology import AnyComponent, Probe, Redis
from envctl.toolchain.lookup import find

PORT = 6379
_SETTINGS = {
    "port": str(PORT),
    "bind": "* -::*",
    "protected-mode": "no",  # the environment's own network is trusted
    "dir": "/data",
    "save": "",
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
}


def _container(component: Redis, flags: tuple[str, ...], site: Site) -> NodeSpec:
    image = component.image or f"redis:{tag_of(component.version, parts=1)}"
    return sealed_container(NodeSpec(
        name=f"{component.name}-0", component=component.name, kind=component.kind, zone=site.zone(component, 0), digest="",
        command=("redis-server", *flags), image=image, user=user_of(image, debian="999:999", alpine="999:1000"),
        init=True, ports={"redis": PORT}, ready=Probe("exec", command=("sh", "-c", f"redis-cli -p {PORT} ping | grep -qx PONG")),
        resources=component.resources, volumes=("/data",),
    ))


class RedisEngine:
    """One node; `settings` of the topology are redis.conf directives and win over the defaults."""

    kind: ClassVar[str] = "redis"

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """`url`, `host` and `port`."""
        assert isinstance(component, Redis)
        return {"url": f"redis://{component.name}:{PORT}/0", "host": component.name, "port": str(PORT)}

    def tools(self, component: AnyComponent) -> Mapping[str, str]:
        """See `RunsTools.tools`."""
        assert isinstance(component, Redis)
        return {"redis": component.version}

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The node.  Raises CapabilityError without this version."""
        assert isinstance(component, Redis)
        settings = {**_SETTINGS, **component.settings}
        flags = tuple(word for key, value in settings.items() for word in (f"--{key}", *(value.split(" ") if value else ("",))))
        if site.packaging == "images":
            return Realisation(component.name, site.needs(component), (_container(component, flags, site),))
        tool = find("redis", component.version)
        ping = f"{tool.programs['redis-cli']} -p {PORT} ping | grep -qx PONG"
        name = f"{component.name}-0"
        spec = NodeSpec(
            name=name, component=component.name, kind=component.kind, zone=site.zone(component, 0), digest="",
            command=(str(tool.programs["redis-server"]), *flags),
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **tool.env}, cwd="/data", mounts=tool_mounts(tool),
            ports={"redis": PORT}, ready=Probe("exec", command=("timeout", "5", "/bin/sh", "-c", ping)),
            resources=component.resources,
        )
        return Realisation(component.name, site.needs(component), (sealed(spec, names=tool_names(tool)),))
