"""Images without an engine: files packed into an archive in the layout of the OCI image specification, version 1.0."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

_MEDIA = "application/vnd.oci.image."
_USERS = {
    "etc/passwd": b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}


def pack(
    archive: Path, name: str, files: Path | Mapping[str, Path], *, links: Mapping[str, str] | None = None, entrypoint: Sequence[str] = (),
    env: Mapping[str, str] | None = None, user: str = "", workdir: str = "/",
) -> str:
    """Writes an archive with one image of one layer: the tree at a path, or single files by their paths in the image.

    `links` are symbolic ones, path → target.  The same input gives the same bytes.  Returns the image's digest (`sha256:…`).
    """
    layer = archive.with_suffix(".layer")
    try:
        with layer.open("wb") as stream:
            _write_layer(stream, files, links or {})
        digest = _digest_of(layer)
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint), "User": user, "WorkingDir": workdir,
                "Env": [f"{key}={value}" for key, value in {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})}.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
        return _write_archive(archive, name, layer, digest, config)
    finally:
        layer.unlink(missing_ok=True)


def _write_layer(stream: BinaryIO, files: Path | Mapping[str, Path], links: Mapping[str, str]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if isinstance(files, Path):
            tar.add(files, arcname=".", filter=_anonymous)
            return
        wanted = {**dict.fromkeys(_USERS), **dict.fromkeys(files), **dict.fromkeys(links)}
        for directory in sorted({str(parent) for path in wanted for parent in Path(path).parents} - {"."} | {"tmp"}):
            _add(tar, directory, kind=tarfile.DIRTYPE, mode=0o1777 if directory == "tmp" else 0o755)
        for path, text in _USERS.items():
            _add(tar, path, text)
        for path, source in sorted(files.items()):
            with source.open("rb") as content:
                entry = _anonymous(tar.gettarinfo(arcname=path, fileobj=content))
                tar.addfile(entry, content)
        for path, target in sorted(links.items()):
            _add(tar, path, kind=tarfile.SYMTYPE, target=target)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Of root, of no time: so that the same files are the same image."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _add(tar: tarfile.TarFile, path: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, target: str = "") -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def _write_archive(archive: Path, name: str, layer: Path, layer_digest: str, config: object) -> str:
    with tarfile.open(archive, "w") as tar:
        configured = _blob(tar, config)
        manifest = _blob(tar, {
            "schemaVersion": 2, "mediaType": f"{_MEDIA}manifest.v1+json", "config": {"mediaType": f"{_MEDIA}config.v1+json", **configured},
            "layers": [{"mediaType": f"{_MEDIA}layer.v1.tar", "digest": layer_digest, "size": layer.stat().st_size}],
        })
        with layer.open("rb") as content:
            entry = tarfile.TarInfo(_place(layer_digest))
            entry.size = layer.stat().st_size
            tar.addfile(entry, content)
        listed = {"mediaType": f"{_MEDIA}manifest.v1+json", **manifest, "annotations": {"io.containerd.image.name": name}}
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode())
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    return str(manifest["digest"])


def _blob(tar: tarfile.TarFile, value: object) -> dict[str, object]:
    content = json.dumps(value, sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    _add(tar, _place(digest), content)
    return {"digest": digest, "size": len(content)}


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
