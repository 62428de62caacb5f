"""Where files beside the nodes are kept: one volume, at the same place in the keeper's pod and in those of work beside it.

Files of the host have their host's paths there: links lead from these to the volume.
"""

from __future__ import annotations

import os
from pathlib import Path

from envctl.errors import ResourceError

VOLUME = Path("/envctl")


def lead(path: Path, volume: Path = VOLUME, root: Path = Path("/")) -> Path:
    """Has a path lead to the volume, from the first part of it that the container does not have by itself; returns where it leads."""
    for part in (*reversed(path.parents), path):
        if part == root or not part.is_relative_to(root):
            continue
        if part.resolve().is_relative_to(volume):
            break
        if not os.path.lexists(part):
            kept = volume / part.relative_to(root)
            (kept.parent if part == path else kept).mkdir(parents=True, exist_ok=True)
            try:
                part.symlink_to(kept)
            except PermissionError as error:
                raise ResourceError(f"{part} can't be made in the keeper's container, where it is not root", hint="have the checkout and the cache below /home, /srv or /tmp") from error
            break
    return path.resolve()


def lead_all(volume: Path = VOLUME, root: Path = Path("/")) -> None:
    """Has all that is in the volume be found at its paths, in a container that is new."""
    for kept in volume.iterdir():
        there = root / kept.name
        if not os.path.lexists(there):
            there.symlink_to(kept)
        elif kept.is_dir() and there.is_dir() and not there.is_symlink():
            lead_all(kept, there)
