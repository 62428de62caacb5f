"""The user's own programs, services and one-shot jobs in any language, and the stubs that answer for left-out services."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import envctl
from envctl.engines.base import Realisation, Site
from envctl.engines.builds import BUILD, built
from envctl.engines.containers import OWN_IMAGE, build_of, files_of, sealed_container
from envctl.engines.content import digest, made_once, tree_digest
from envctl.engines.interpreters import in_usr, linked, needed, own_python
from envctl.engines.manifests import of_manifests
from envctl.engines.nodes import PATH, sealed
from envctl.engines.references import endpoints, resolve
from envctl.engines.sources import source_copy, tree_copy
from envctl.errors import Problem, SpecError
from envctl.model.environment import Mount, NodeSpec
from envctl.model.topology import AnyComponent, Job, Probe, Service, Topology

APP = "/app"
SCHEDULE_DELAY = "OTEL_BSP_SCHEDULE_DELAY"  # how long exporters hold spans back, milliseconds
SCHEDULE_DELAY_MS = 500


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything that is the same for all nodes of a program."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    names: Mapping[str, str]  # mount source → content id


class ServiceEngine:
    """A long-running program: `replicas` nodes of one command."""

    kind: ClassVar[str] = "service"

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """`host`, and for each port `PORT.url` (http), `PORT.address` (host:port) and `PORT.port`."""
        assert isinstance(component, Service)
        found = {"host": component.name}
        for name, port in component.ports.items():
            found[f"{name}.url"] = f"http://{component.name}:{port}"
            found[f"{name}.address"] = f"{component.name}:{port}"
            found[f"{name}.port"] = str(port)
        return found

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The nodes; copies the source and runs the build.  Raises SpecError and ResourceError where that fails."""
        assert isinstance(component, Service)
        return Realisation(component.name, site.needs(component), tuple(_nodes(component, site, component.replicas)))


class JobEngine:
    """A one-shot program: one node that is complete when it has exited 0."""

    kind: ClassVar[str] = "job"

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """Nothing: a job answers nobody."""
        assert isinstance(component, Job)
        return {}

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The node; copies the source and runs the build.  Raises SpecError and ResourceError where that fails."""
        assert isinstance(component, Job)
        return Realisation(component.name, site.needs(component), tuple(_nodes(component, site, 1)))


def _nodes(component: Service | Job, site: Site, count: int) -> Iterator[NodeSpec]:
    if site.manifests and component.manifests:
        yield from (of_manifests(component, component.manifests, site, _bare(component, site, index), index) for index in range(count))
    elif site.packaging == "images":
        yield from (_container(component, site, index) for index in range(count))
    else:
        prepared = _prepare(component, site)
        yield from (_node(component, prepared, site, index) for index in range(count))


def _container(component: Service | Job, site: Site, index: int) -> NodeSpec:
    image = component.image
    assert image, f"{component.name} has no image"  # refused before (`spec.unpackaged`)
    known = endpoints(site.topology)
    bare = replace(
        _bare(component, site, index), command=image.command, entrypoint=image.entrypoint or None, user=image.user, cwd=image.working_dir or "/",
        image=image.reference or component.name, build=build_of(site.topology, image), init=True, volumes=image.volumes,
        files=files_of(site.topology, image),
    )
    return sealed_container(replace(bare, env={**bare.env, **{key: resolve(value, known) for key, value in component.env.items()}}))


def _prepare(component: Service | Job, site: Site) -> _Prepared:
    source = source_copy(site.topology, component, site.cache)
    mounts, names = [Mount(source[0], APP)], {str(source[0]): source[1]}
    build = built(site.topology, component, source, site.cache, site.progress)
    path: list[str] = []
    in_build = False
    if build:
        mounts.append(Mount(build[0], BUILD))
        names[str(build[0])] = f"build-{build[1]}"
        path.append(f"{BUILD}/bin")
        for prefix in linked(build[0]):
            mounts.append(Mount(prefix, str(prefix)))
            names[str(prefix)] = own_python().id if prefix == own_python().prefix else str(prefix)
        in_build = (build[0] / "bin" / component.command[0]).exists()
    tool = None if in_build else needed(component.command)
    if tool:
        mounts.append(Mount(tool.prefix, str(tool.prefix)))
        names[str(tool.prefix)] = tool.id
        path.append(str(tool.bin))
    known = endpoints(site.topology)
    env = {"PATH": ":".join((*path, PATH)), **{key: resolve(value, known) for key, value in component.env.items()}}
    return _Prepared(component.command, env, tuple(dict.fromkeys(mounts)), names)


def _node(component: Service | Job, prepared: _Prepared, site: Site, index: int) -> NodeSpec:
    bare = _bare(component, site, index)
    spec = replace(bare, command=prepared.command, cwd=APP, mounts=prepared.mounts, env={**bare.env, **prepared.env})
    return sealed(spec, names=prepared.names)


def _bare(component: Service | Job, site: Site, index: int) -> NodeSpec:
    """What a node is whatever it is made of."""
    name = f"{component.name}-{index}"
    zone = site.zone(component, index)
    service = component if isinstance(component, Service) else None
    return NodeSpec(
        name=name, component=component.name, kind=component.kind, zone=zone, digest="", command=(),
        env=_given_env(component.name, name, zone, site),
        ports=service.ports if service else {},
        ready=service.ready if service else None,
        one_shot=service is None,
        stop_grace_s=service.stop_grace_s if service else 5.0,
        resources=component.resources,
    )


def _given_env(component: str, node: str, zone: str, site: Site) -> dict[str, str]:
    """What every program gets: who it is, and where its telemetry goes, soon enough for a short run.

    Names and meanings: OpenTelemetry specification, "Environment Variable Specification".
    """
    env = {"ENVCTL_NODE": node, "ENVCTL_ZONE": zone, "ENVCTL_ENVIRONMENT": site.env_id, "PYTHONUNBUFFERED": "1"}
    if site.otlp_http:
        attributes = {"service.instance.id": node, "deployment.environment.name": site.env_id, "envctl.node": node}
        env |= {
            "OTEL_SERVICE_NAME": component,
            "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{key}={value}" for key, value in attributes.items()),
            "OTEL_EXPORTER_OTLP_ENDPOINT": site.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            SCHEDULE_DELAY: str(SCHEDULE_DELAY_MS),
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",  # the SDK counts what it sends, so that lost spans are noticed
        }
    return env


def stub_realisation(component: AnyComponent, site: Site) -> Realisation:
    """The node that answers for a left-out service from its declared examples, under the service's name and ports.

    Raises SpecError where the component cannot be stubbed.
    """
    topology = site.topology
    if not isinstance(component, Service):
        raise _unstubbable(topology, component, f"a {component.kind} cannot be stubbed", "select it instead")
    examples = topology.directory / component.stub
    if not component.stub or not examples.is_file():
        found = f"no such file: {component.stub}" if component.stub else "it declares no examples to answer from"
        raise _unstubbable(topology, component, found, "name a file of examples under `stub`, or select the component")
    if not component.ports:
        raise _unstubbable(topology, component, "it has no ports to answer on", "declare its `ports`")
    kept, examples_id = _with_neighbours(examples, site.cache)
    answered = _stub_ports(topology, component)
    flags = (word for protocol, number in answered.items() for word in (f"--{protocol}", str(number)))
    arguments = ("-m", "envctl.replay.stub", "--examples", f"/examples/{examples.name}", *flags)
    bare = NodeSpec(
        name=f"{component.name}-0", component=component.name, kind="service", zone=site.zone(component, 0), digest="",
        command=("python3", *arguments), env={"PYTHONUNBUFFERED": "1"}, ports=component.ports, image=OWN_IMAGE, init=True,
        files={"/examples": kept}, ready=Probe("tcp", port=next(iter(answered.values()))),
    )
    if site.packaging == "images":
        return Realisation(component.name, (), (sealed_container(bare),))
    mounts, names = _own_program(site)
    spec = replace(
        bare, command=(str(Path(sys.prefix) / "bin" / "python"), *arguments), cwd=APP, env={**bare.env, "PATH": PATH}, image="", files={},
        init=False, mounts=(*mounts, Mount(kept, "/examples")),
    )
    return Realisation(component.name, (), (sealed(spec, names={**names, str(kept): examples_id}),))


def _with_neighbours(examples: Path, cache: Path) -> tuple[Path, str]:
    """A directory with the file of examples and the files beside it, which it may name (`.proto`); and its content id."""
    files = sorted(path for path in examples.parent.iterdir() if path.is_file())
    key = digest("examples", [(path.name, tree_digest(path)) for path in files])

    def make(half: Path) -> None:
        for path in files:
            shutil.copyfile(path, half / path.name)

    return made_once(cache / "sources" / f"examples-{key}", make), key


def _own_program(site: Site) -> tuple[tuple[Mount, ...], dict[str, str]]:
    """What envctl itself is made of: package, libraries and interpreter, as mounts; and their names."""
    package, package_id = tree_copy(Path(envctl.__file__).parent, site.cache)
    names = {str(package): package_id, sys.prefix: "envctl-libraries", sys.base_prefix: own_python().id}
    prefixes = dict.fromkeys((sys.base_prefix, sys.prefix))
    seen = tuple(Mount(Path(prefix), prefix) for prefix in prefixes if not in_usr(Path(prefix)))
    return (Mount(package, f"{APP}/envctl"), *seen), names


def _stub_ports(topology: Topology, component: Service) -> dict[str, int]:
    """Protocol → the port on which a stub speaks it: the first of each; `http` before others that are not gRPC."""
    names = sorted(component.ports, key=lambda name: name != "http")
    found: dict[str, int] = {}
    for name in names:
        found.setdefault("grpc" if _is_grpc(topology, component, name) else "http", component.ports[name])
    return found


def _is_grpc(topology: Topology, component: Service, port: str) -> bool:
    """Whether a port speaks gRPC: it is called so, or it is the only one and whoever calls the service says so."""
    calls = {
        caller.calls.get(component.name) for caller in topology.components.values() if isinstance(caller, Service)
    }
    return port == "grpc" or (len(component.ports) == 1 and "grpc" in calls and "http" not in calls)


def _unstubbable(topology: Topology, component: AnyComponent, message: str, hint: str) -> SpecError:
    return SpecError([Problem(topology.file, component.line, f"components.{component.name}.stub", message, hint)])
