"""Which version of a release is the current one.

releases/<name>/versions/<digest>/   immutable
releases/<name>/current              a text file with the digest, replaced atomically
"""

from __future__ import annotations

import re
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.storage import Storage, write_atomically

CURRENT = "current"


def version_kind(name: str) -> str:
    """The storage kind of the versions of release `name`."""
    return f"releases/{name}/versions"


def current_release(storage: Storage, name: str) -> Path | None:
    """The folder that `current` points at, or None where nothing was published under `name`."""
    home = storage.root / "releases" / name
    return resolve_release(home) if (home / CURRENT).is_file() else None


def resolve_release(directory: Path) -> Path:
    """Follow `current` if `directory` has one, else `directory` itself.

    Raises UserError where `current` names no published version.
    """
    pointer = directory / CURRENT
    if not pointer.is_file():
        return directory
    digest = pointer.read_text(encoding="utf-8", errors="replace").strip()
    version = directory / "versions" / digest
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest) or not version.is_dir():
        raise UserError(f"{pointer} names {digest[:80]!r}, which is no version below {directory}: publish again to mend it.")
    return version


def point_current(version: Path) -> bool:
    """Make `version` (…/versions/<digest>) the current one; True if the pointer moved."""
    pointer = version.parent.parent / CURRENT
    text = f"{version.name}\n"
    if pointer.is_file() and pointer.read_text(encoding="utf-8", errors="replace") == text:
        return False
    write_atomically(pointer, text)
    return True
