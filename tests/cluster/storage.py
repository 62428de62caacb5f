"""Gives volumes to the claims of a cluster, on the disk of its node, and takes them back: `python -m cluster.storage`, a part of the cluster.

A claim of the class `standard` gets a directory once its first pod has been given a node; it and what is in it go with the claim.
"""

from __future__ import annotations

import json
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import parts

CLASS, PROVISIONER = "standard", "envctl.dev/directories"  # also in objects.yaml
VOLUMES = Path("/var/lib/volumes")
_SELECTED = "volume.kubernetes.io/selected-node"
_BY = "pv.kubernetes.io/provisioned-by"


class Volumes:
    """Follows claims and volumes, and answers them."""

    def __init__(self) -> None:
        self._trust = ssl.create_default_context(cafile=str(parts.PKI / "ca.crt"))
        self._token = parts.token("admin")

    def follow(self, plural: str, answer: Callable[[Any], None]) -> None:
        """Has every object of a kind answered, those that are there first, again whenever it changes."""
        while True:
            with suppress(OSError, ValueError):
                for event in self._watch(f"/api/v1/{plural}?watch=1"):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        answer(event["object"])
            time.sleep(0.2)

    def give(self, claim: Any) -> None:
        """Makes a volume for a claim that waits for one of ours."""
        spec, metadata = claim["spec"], claim["metadata"]
        waits = spec.get("storageClassName") == CLASS and claim["status"]["phase"] == "Pending" and not spec.get("volumeName")
        if not waits or _SELECTED not in metadata.get("annotations", {}):
            return
        name = f"pvc-{metadata['uid']}"
        place = VOLUMES / name
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **{key: metadata[key] for key in ("namespace", "name", "uid")}}
        volume = {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "annotations": {_BY: PROVISIONER}},
            "spec": {
                "capacity": spec["resources"]["requests"], "accessModes": spec["accessModes"], "storageClassName": CLASS, "claimRef": owner,
                "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": str(place), "type": "Directory"},
            },
        }
        self._ask("POST", "/api/v1/persistentvolumes", volume)

    def take(self, volume: Any) -> None:
        """Removes a volume of ours whose claim is gone, and what is in it."""
        metadata = volume["metadata"]
        if volume["status"].get("phase") == "Released" and metadata.get("annotations", {}).get(_BY) == PROVISIONER:
            shutil.rmtree(VOLUMES / metadata["name"], ignore_errors=True)
            self._ask("DELETE", f"/api/v1/persistentvolumes/{metadata['name']}")

    def _watch(self, path: str) -> Iterator[Any]:
        with self._open("GET", path, None, timeout_s=3600) as answer:
            yield from map(json.loads, answer)

    def _ask(self, method: str, path: str, body: object = None) -> None:
        try:
            self._open(method, path, body, timeout_s=30).close()
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409):  # what it was to be, it is already
                sys.stderr.write(f"{method} {path}: {error.read().decode(errors='replace')}\n")
                raise

    def _open(self, method: str, path: str, body: object, timeout_s: float) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"https://{parts.NODE_IP}:{parts.API_PORT}{path}", data, headers, method=method)
        return urllib.request.urlopen(request, timeout=timeout_s, context=self._trust)


def main() -> None:
    """Serves for as long as the cluster lives."""
    volumes = Volumes()
    threading.Thread(target=volumes.follow, args=("persistentvolumes", volumes.take), daemon=True).start()
    volumes.follow("persistentvolumeclaims", volumes.give)


if __name__ == "__main__":
    main()
