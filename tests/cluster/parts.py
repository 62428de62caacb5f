"""The parts of a cluster: their files and command lines, as seen from inside its namespaces.

`/run/cluster` is the cluster's directory there.  The addresses exist in the cluster's own network only.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

STATE = Path("/run/cluster")
PKI, ETC, LOGS = STATE / "pki", Path("/run/etc"), STATE / "logs"
RESTS = STATE / "rests"  # a file for each part that is not to run, until something stands in it
SOCKET = "/run/containerd/containerd.sock"
NODE, ZONE, NODE_IP, API_PORT = "node-a", "a", "198.18.0.1", 6443
PODS, SERVICES, API_SERVICE_IP = "198.18.0.0/17", "198.19.0.0/16", "198.19.0.1"
DNS_IP = "198.19.0.10"  # also in objects.yaml
FAKE_PODS = "198.18.128.0/17"
_ETCD = "http://127.0.0.1:2379"
_USERS = {  # by the file of their credentials: name and group
    "admin": ("admin", "system:masters"), "controllers": ("system:kube-controller-manager", ""), "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"), "proxy": ("system:kube-proxy", ""),
}
_EXTENSIONS = {
    "apiserver": f"subjectAltName=IP:{NODE_IP},IP:127.0.0.1,IP:{API_SERVICE_IP},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc",
    "kubelet": f"subjectAltName=IP:{NODE_IP},DNS:{NODE}",
    "client": "extendedKeyUsage=clientAuth",
}


def write_keys() -> None:
    """A certificate authority, certificates and tokens for everybody."""
    PKI.mkdir(mode=0o700)
    (PKI / "openssl.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
    _certificate("ca", "/CN=cluster", "basicConstraints=critical,CA:TRUE")
    for name, subject in (("apiserver", "/CN=kube-apiserver"), ("kubelet", f"/CN={NODE}"), ("client", "/O=system:masters/CN=kube-apiserver")):
        _certificate(name, subject, _EXTENSIONS[name], "-CA", "ca.crt", "-CAkey", "ca.key")
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "accounts.key")
    _openssl("pkey", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
    tokens = {user: secrets.token_hex(16) for user in _USERS}
    (PKI / "tokens.json").write_text(json.dumps(tokens))
    lines = [f'{tokens[user]},{name},{name},"{group}"\n' for user, (name, group) in _USERS.items()]
    (PKI / "tokens.csv").write_text("".join(lines))


def _certificate(name: str, subject: str, extension: str, *signer: str) -> None:
    _openssl(
        "req", "-config", "openssl.cnf", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", subject, "-addext", extension, *signer, "-keyout", f"{name}.key", "-out", f"{name}.crt",
    )


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], cwd=PKI, check=True, capture_output=True)


def write_credentials(port: int) -> None:
    """A kubeconfig for every part, and one for the host: the same administrator at the address of the way in."""
    for user in _USERS:
        (ETC / f"{user}.kubeconfig").write_text(_kubeconfig(f"https://{NODE_IP}:{API_PORT}", user))
    outside = STATE / "kubeconfig"
    outside.touch(mode=0o600)
    outside.write_text(_kubeconfig(f"https://127.0.0.1:{port}", "admin"))


def token(user: str) -> str:
    """The bearer token of a part."""
    return str(json.loads((PKI / "tokens.json").read_text())[user])


def _kubeconfig(server: str, user: str) -> str:
    authority = base64.b64encode((PKI / "ca.crt").read_bytes()).decode()
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token(user)}}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
    })


def write_files(debian: Path, pause: str) -> None:
    """The configuration files of containerd, the pods' network, the kubelet and kube-proxy."""
    (ETC / "cni").mkdir(parents=True, exist_ok=True)
    (ETC / "cni/10-pods.conflist").write_text(json.dumps(_pod_network()))
    (ETC / "containerd.toml").write_text(_containerd(debian, pause))
    (ETC / "resolv.conf").write_text("")  # nothing beyond the cluster can be resolved
    (ETC / "kubelet.json").write_text(json.dumps(_kubelet()))
    (ETC / "proxy.json").write_text(json.dumps(_proxy()))


def _pod_network() -> object:
    """Every pod hangs on the node by a wire of its own, so that all its packets pass the node's routing and filters."""
    addresses = {"type": "host-local", "dataDir": "/run/addresses", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses}]}


def _containerd(debian: Path, pause: str) -> str:
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
{cri}]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true  # where CAP_SYS_RESOURCE is missing, no process may become dearer
  disable_apparmor = true  # a profile would be loaded into the machine's kernel
  netns_mounts_under_state_dir = true
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  BinaryName = "{debian}/usr/sbin/runc"
  SystemdCgroup = false
{cri}.cni]
  bin_dir = "{debian}/usr/lib/cni"
  conf_dir = "{ETC}/cni"
"""


def _kubelet() -> object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": NODE_IP, "healthzBindAddress": "127.0.0.1", "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{PKI}/ca.crt"}},
        "authorization": {"mode": "Webhook"}, "tlsCertFile": f"{PKI}/kubelet.crt", "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{SOCKET}", "cgroupDriver": "cgroupfs", "failCgroupV1": False, "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False, "resolvConf": f"{ETC}/resolv.conf", "clusterDNS": [DNS_IP], "clusterDomain": "cluster.local",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins", "maxPods": 110, "nodeStatusUpdateFrequency": "5s",
        # Images can't be fetched again: none is ever collected, and no pod is evicted because the host's disk is full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
    }


def _proxy() -> object:
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables", "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": f"{ETC}/proxy.kubeconfig"}, "clusterCIDR": PODS, "hostnameOverride": NODE, "conntrack": untouched,
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249", "nodePortAddresses": ["primary"],
    }


def commands(programs: Mapping[str, str]) -> dict[str, list[str]]:
    """The command line of every part, by its name."""
    return {
        "etcd": [
            programs["etcd"], f"--data-dir={STATE}/etcd", "--unsafe-no-fsync", f"--quota-backend-bytes={8 << 30}", f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}", "--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
        ],
        "containerd": [programs["containerd"], f"--config={ETC}/containerd.toml"],
        "kube-apiserver": [programs["kube-apiserver"], *_apiserver()],
        "kube-controller-manager": [
            programs["kube-controller-manager"], *_client("controllers"), "--use-service-account-credentials", "--allocate-node-cidrs=false",
            f"--service-account-private-key-file={PKI}/accounts.key", f"--root-ca-file={PKI}/ca.crt",
        ],
        "kube-scheduler": [programs["kube-scheduler"], *_client("scheduler")],
        "kube-proxy": [programs["kube-proxy"], f"--config={ETC}/proxy.json"],
        "storage": [sys.executable, "-m", "cluster.storage"],
        "kubelet": [
            programs["kubelet"], f"--config={ETC}/kubelet.json", f"--kubeconfig={ETC}/kubelet.kubeconfig", f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}", f"--node-labels=topology.kubernetes.io/zone={ZONE}", "--root-dir=/var/lib/kubelet", "--cert-dir=/run/etc",
        ],
    }


def _apiserver() -> list[str]:
    return [
        f"--etcd-servers={_ETCD}", f"--bind-address={NODE_IP}", f"--advertise-address={NODE_IP}", f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICES}", f"--tls-cert-file={PKI}/apiserver.crt", f"--tls-private-key-file={PKI}/apiserver.key",
        f"--client-ca-file={PKI}/ca.crt", f"--token-auth-file={PKI}/tokens.csv", "--authorization-mode=Node,RBAC", "--allow-privileged",
        "--enable-admission-plugins=NodeRestriction", "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={PKI}/accounts.pub", f"--service-account-signing-key-file={PKI}/accounts.key",
        f"--kubelet-client-certificate={PKI}/client.crt", f"--kubelet-client-key={PKI}/client.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
    ]


def _client(user: str) -> list[str]:
    """What the two managers have in common: one of each, allowed more than three requests a second."""
    path = f"{ETC}/{user}.kubeconfig"
    return [
        f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}", "--bind-address=127.0.0.1",
        "--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=600", "--cert-dir=/run/etc",
    ]
