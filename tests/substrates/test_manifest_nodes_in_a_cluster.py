"""A team's manifests, run by a real cluster, are what they are in production but for what the topology says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grounds import IMAGE, Ground

from envctl.engines.base import Site
from envctl.engines.realise import realise_all
from envctl.spec import load_topology

pytestmark = pytest.mark.kubernetes
MANIFESTS = f"""\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: web, namespace: prod}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: web, namespace: prod}}
rules: [{{apiGroups: [""], resources: [configmaps], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: web, namespace: prod}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}}
subjects: [{{kind: ServiceAccount, name: web, namespace: prod}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: page, namespace: prod}}
data: {{index.html: "from production"}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: prod}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: http, nodePort: 30080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: peers, namespace: prod}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: site, namespace: prod}}
spec:
  serviceName: peers
  replicas: 9
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      serviceAccountName: web
      nodeSelector: {{pool: general}}
      securityContext: {{runAsUser: 1000, fsGroup: 1000}}
      initContainers:
        - {{name: prepare, image: {IMAGE}, command: [cp, /page/index.html, /data/], volumeMounts: [{{name: page, mountPath: /page}}, {{name: data, mountPath: /data}}]}}
      containers:
        - {{name: helper, image: {IMAGE}, command: [sleep, "600"]}}
        - name: site
          image: {IMAGE.partition(":")[0]}:production
          command: [python3, -m, http.server, "8080"]
          args: [--directory, /data]
          ports: [{{name: http, containerPort: 8080}}]
          env:
            - {{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: COLOUR, value: red}}
            - {{name: BOTH, value: $(NAME) $(COLOUR)}}
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
          volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: page, configMap: {{name: page}}}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{accessModes: [ReadWriteOnce], storageClassName: fast, resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: prod}}
spec: {{rules: []}}
"""
TOPOLOGY = """\
envctl: topology/v1
name: shop
components:
  web:
    kind: service
    manifests: {files: [web.yaml], images: {site: ":TAG"}}
    replicas: 2
    env: {COLOUR: blue}
    resources: {cpus: 0.2, memory: 64Mi}
    stop_grace: 1s
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Any:
    (tmp_path / "web.yaml").write_text(MANIFESTS)
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.replace("TAG", IMAGE.partition(":")[2]))
    topology = load_topology(tmp_path / "topology.yaml")
    site = Site(topology, "env", ("web",), (), tmp_path / "cache", packaging="images", manifests=True)
    return realise_all(topology, ("web",), (), site)[0].nodes


def test_manifests_run_with_their_names_volumes_and_sidecars(kubernetes_ground: Ground, nodes: Any) -> None:
    reach, realiser = kubernetes_ground.make()
    made = [realiser.start_node(node, ready_timeout_s=90) for node in nodes]
    assert [(node.name, node.state, dict(node.ports)) for node in made] == [("web-0", "ready", {"http": 8080}), ("web-1", "ready", {"http": 8080})]
    assert reach.run("web-1", ["sh", "-c", 'hostname; echo "$BOTH"; cat /data/index.html']).stdout == "site-1\nsite-1 blue\nfrom production"
    for url in ("http://web", "http://web:8080", "http://site-0.peers:8080"):
        asked = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
        assert reach.run("web-1", ["python3", "-c", asked]).stdout == "from production\n", url
    reach.signal("web-0", 9)
    reach.wait_ready("web-0", 60)
    assert reach.run("web-0", ["cat", "/data/index.html"]).stdout == "from production"
    realiser.stop_node("web-1")
    assert [node.name for node in reach.environment().nodes] == ["web-0"]
