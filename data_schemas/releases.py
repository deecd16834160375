"""The layout of published releases, below a storage root or at any destination.

releases/<name>/versions/<digest>/   immutable
releases/<name>/current              a text file with the digest, replaced atomically
releases/<name>/rolled_back          digests that `ropeway rollback` left, one a line; publishing them again does not serve them
releases/<name>/announced            the digest whose release event was sent last
"""

from __future__ import annotations

import re
from pathlib import Path

from data_schemas.errors import UserError

CURRENT = "current"
DIGEST = re.compile(r"[0-9a-f]{8,64}")


def version_key(name: str, digest: str) -> str:
    """The folder of a version, relative to the folder of all releases."""
    return f"{name}/versions/{digest}"


def version_kind(name: str) -> str:
    """The storage kind of the versions of release `name`."""
    return f"releases/{name}/versions"


def parse_pointer(raw: bytes | None) -> str | None:
    """The digest in `current`. None where there is no pointer, or its content is not a digest."""
    text = (raw or b"").decode("utf-8", errors="replace").strip()
    return text if DIGEST.fullmatch(text) else None


def resolve_release(directory: Path) -> Path:
    """Follow `current` if `directory` has one, else `directory` itself.

    Raises UserError where `current` names no published version.
    """
    pointer = directory / CURRENT
    if not pointer.is_file():
        return directory
    raw = pointer.read_bytes()
    digest = parse_pointer(raw)
    if digest is None or not (directory / "versions" / digest).is_dir():
        named = raw.decode("utf-8", errors="replace").strip()[:80]
        raise UserError(f"{pointer} names {named!r}, which is no version below {directory}: publish again to mend it.")
    return directory / "versions" / digest
