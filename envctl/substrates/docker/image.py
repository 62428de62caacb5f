"""The image of keepers and positions: envctl itself with the tools of faults, made once on the user's engine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import threading
from collections import defaultdict
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import envctl
from envctl.engines.containers import OWN_IMAGE
from envctl.errors import ResourceError
from envctl.model.environment import ImageBuild, NodeSpec
from envctl.model.topology import Image
from envctl.spec.contexts import context_of
from envctl.substrates.docker import builder
from envctl.substrates.docker.engine import api, client, translated

# A keeper need not be root: files of the host have their host's path in it, so it may make directories at the usual places.  Those at the
# top are there already: what a layer says of the mode of `/` itself is not heard everywhere.
_PLACES = (
    "/Users /__w /build /builds /code /data /github /home /mnt /opt /project /projects /repo /root /src /srv /tmp /var /var/tmp /work /workspace /workspaces"
)
BASE = "python:3.11-slim-bookworm"
_RECIPE = f"""\
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends nftables iproute2 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /opt/
RUN python3 -m pip install --no-cache-dir --break-system-packages --require-hashes -r /opt/requirements.lock
COPY site /opt/envctl
RUN mkdir -p {_PLACES} && chmod 0777 / {_PLACES}
ENV PYTHONPATH=/opt/envctl PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
"""
_OWN = "envctl.dev/image"  # label
_KEPT = 3
_LOCK = Path(__file__).with_name("keeper.lock")
_PACKAGE = Path(envctl.__file__).parent
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def image_of(spec: NodeSpec) -> str:
    """The reference of a node's image, which is there: pulled or built where it was not.  Raises ResourceError with what went wrong."""
    if spec.image == OWN_IMAGE:
        return keeper_image()
    if spec.build is None:
        with _locks[spec.image]:
            if not _is_here(spec.image):
                _pull(spec.image, spec.component)
        return spec.image
    name = f"envctl-build:{spec.image}-{spec.build.digest}"
    with _locks[name]:
        if not _is_here(name):
            _build_of(spec.build, name)
    return name


def _pull(reference: str, component: str) -> None:
    name, tag = reference, None
    if "@" not in reference and ":" not in reference.rpartition("/")[2]:
        tag = "latest"
    failed = f"{component}: the image {reference} could not be pulled"
    with translated(failed):
        for said in api().pull(name, tag=tag, stream=True, decode=True):
            if "error" in said:
                raise ResourceError(f"{failed}: {said['error']}")


def _build_of(build: ImageBuild, name: str) -> None:
    context = context_of(build.context.parent, Image(context=build.context.name, dockerfile=build.dockerfile, inputs=build.inputs))
    with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
        # The docker command knows a tar by its first kilobyte: there must be a whole entry, without records of its own for times and long names.
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path in dict.fromkeys((PurePosixPath(context.dockerfile), *context.files())):
                tar.add(build.context / path, arcname=_inside(path), recursive=False)
        packed.flush()
        builder.build(name, Path(packed.name), _inside(PurePosixPath(context.dockerfile)), build)


def _inside(path: PurePosixPath) -> str:
    """A Dockerfile may be outside of its context."""
    return f".dockerfile-{path.name}" if str(path).startswith("..") else str(path)


def keeper_image() -> str:
    """The name of the image for this version of envctl; builds it when it is not there.  Raises ResourceError with what went wrong."""
    files = _files()
    name = f"envctl-keeper:{_digest(files)}"
    with _locks[name]:
        if not _is_here(name):
            _build(name, files)
    return name


def _is_here(name: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        with translated("looking for images"):
            client().images.get(name)
    except ResourceError as error:
        if isinstance(error.__cause__, ImageNotFound):
            return False
        raise
    return True


def _files() -> dict[str, bytes]:
    """Everything that goes into the image, by path."""
    files = {"Dockerfile": _RECIPE.encode(), "requirements.lock": _LOCK.read_bytes()}
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            files[f"site/envctl/{path.relative_to(_PACKAGE)}"] = path.read_bytes()
    for file in ("METADATA", "entry_points.txt"):  # by which plug-ins are found
        files[f"site/envctl-{envctl.__version__}.dist-info/{file}"] = (distribution("envctl").read_text(file) or "").encode()
    return files


def _digest(files: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path, content in files.items():
        whole.update(f"{path}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()[:16]


def _build(name: str, files: dict[str, bytes]) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    builder.by_engine(name, fileobj=context, labels={_OWN: "keeper"})
    _forget_old()


def _forget_old() -> None:
    """Removes all but the newest images of keepers: each version of envctl makes one."""
    from docker.errors import APIError

    images = client().images
    with translated("looking for images"):
        made = sorted(images.list(filters={"label": _OWN}), key=lambda image: str(image.attrs["Created"]), reverse=True)
    for image in made[_KEPT:]:
        with suppress(APIError):  # in use
            images.remove(str(image.id))
