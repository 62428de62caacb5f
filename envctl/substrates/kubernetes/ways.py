"""The ways out of an environment that a cluster needs: where its names and its API are, which differs from cluster to cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from envctl.errors import EnvctlError
from envctl.substrates.kubernetes.api import Api

_OF_API = "kubernetes.io/service-name=kubernetes"  # the label of its endpoints, in the namespace `default`


@dataclass(frozen=True, slots=True)
class Ways:
    """What the policies of a namespace let out; the default is what most clusters have."""

    api_ports: tuple[int, ...] = (443, 6443, 8443)  # also those of its pods or machines: a policy is asked after a service has led there
    resolvers: tuple[str, ...] = ("169.254.20.10",)  # addresses that are no pod's: that of NodeLocal DNSCache


def ways_in(cluster: Api) -> Ways:
    """Those of a cluster, as far as whoever asks may know."""
    usual = Ways()
    return Ways(tuple(sorted({*usual.api_ports, *_api_ports(cluster)})), (*usual.resolvers, *_resolvers(cluster)))


def _api_ports(cluster: Api) -> Iterator[int]:
    try:
        for one in cluster.find("EndpointSlice", "default", _OF_API):
            yield from (int(each["port"]) for each in one.get("ports") or ())
    except EnvctlError:  # who may not know has reached it at one
        yield from filter(None, (cluster.port,))


def _resolvers(cluster: Api) -> Iterator[str]:
    """The address of the service, which NodeLocal DNSCache answers on each machine before it leads to a pod."""
    with suppress(EnvctlError):
        spec = cluster.get("Service", "kube-dns", "kube-system")["spec"]
        yield from (each for each in spec.get("clusterIPs") or () if each != "None")
