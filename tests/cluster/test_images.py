"""Images packed without an engine; that they run is shown in test_cluster.py."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from cluster.images import pack


def layer_of(archive: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(archive) as tar:
        blobs = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    manifest = blobs["blobs/" + json.loads(blobs["index.json"])["manifests"][0]["digest"].replace(":", "/")]
    layer = blobs["blobs/" + json.loads(manifest)["layers"][0]["digest"].replace(":", "/")]
    return tarfile.open(fileobj=io.BytesIO(layer)).getmembers()


def test_the_same_files_are_the_same_image_whenever_and_by_whom_they_were_written(tmp_path):
    digests = set()
    for number in (1, 2):
        program = tmp_path / f"program-{number}"
        program.write_text("same")
        digests.add(pack(tmp_path / f"{number}.tar", "localhost/x:1", {"bin/x": program}, entrypoint=("/bin/x",)))
    assert len(digests) == 1


def test_single_files_get_their_directories_users_and_links(tmp_path):
    (tmp_path / "x").write_text("x")
    pack(tmp_path / "image.tar", "localhost/x:1", {"opt/own/x": tmp_path / "x"}, links={"bin/x": "/opt/own/x"})
    names = [member.name for member in layer_of(tmp_path / "image.tar")]
    assert names == ["bin", "etc", "opt", "opt/own", "tmp", "etc/passwd", "etc/group", "opt/own/x", "bin/x"]


def test_a_tree_is_packed_as_it_is_but_belongs_to_root(tmp_path):
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("content")
    (tmp_path / "tree/link").symlink_to("sub/file")
    pack(tmp_path / "image.tar", "localhost/x:1", tmp_path / "tree")
    members = {member.name.removeprefix("./"): member for member in layer_of(tmp_path / "image.tar")}
    assert members["link"].linkname == "sub/file"
    assert members["sub/file"].size == 7
    assert {(member.uid, member.mtime) for member in members.values()} == {(0, 0)}
