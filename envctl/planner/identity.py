"""Names and digests that are the same for the same input, wherever and whenever they are computed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envctl.model.topology import AnyComponent

_REPO, _REF, _DIGEST = 12, 16, 10  # characters of each part; with two hyphens 40
MAKING = "snapshot-"  # what the names of environments begin with that only live while a snapshot is made


def environment_id(project_root: Path, repo: str, branch_or_pr: str) -> str:
    """`<repo>-<branch or pr-N>-<short digest>`: deterministic, a DNS label of at most 40 characters.

    The digest (50 bits of SHA-256) covers the checkout's path and the full names, so that neither two branches nor two
    checkouts share an environment, however alike their shortened names are.
    """
    named = json.dumps([str(project_root.resolve()), repo, branch_or_pr])
    digest = base64.b32encode(hashlib.sha256(named.encode()).digest()).decode().lower()[:_DIGEST]
    return "-".join((_slug(repo, _REPO, "env"), _slug(branch_or_pr, _REF, "x"), digest))


def _slug(text: str, length: int, fallback: str) -> str:
    """The text in the letters of a DNS label, beginning with a letter."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"{fallback}-{slug}".strip("-")
    return slug[:length].rstrip("-")


def configuration(component: AnyComponent, zones: tuple[str, ...]) -> dict[str, object]:
    """A component as plain values: where it stands in the file does not count, nor what is said of its manifests; the zones it gets do."""
    values = asdict(component)
    del values["line"]
    if values.get("manifests"):
        del values["manifests"]["left_out"], values["manifests"]["remarks"]
    return {**values, "kind": component.kind, "zones": component.zones or zones}


def plan_digest(parts: Sequence[object]) -> str:
    """64 bits in hexadecimal over everything that decides what will be alive."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
