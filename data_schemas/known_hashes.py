"""SHA-256 of large files that were hashed before, so that a run with nothing to do need not read a base of many GB again.

A hash is known while size, inode and the times of the last change are as they were. The kernel sets the change time (ctime) at every
write, and no program can set it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from data_schemas.cache_folder import cache_folder
from data_schemas.manifest import hash_file

FROM_BYTES = 64 << 20  # smaller files are read faster than they are worth a file in the cache
_SETTLED_AFTER_NS = 2 * 10**9  # a clock tick of any file system: a file that is younger may change without a new time


def known_hash(path: Path) -> str:
    """SHA-256 of a file, in hex; read only if the file is small, new or changed."""
    state = _state(path)
    if state["num_bytes"] < FROM_BYTES:
        return hash_file(path)
    kept = cache_folder() / "hashes" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(kept.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    sha256 = hash_file(path)
    if _state(path) == state and time.time_ns() - max(state["changed_ns"], state["written_ns"]) > _SETTLED_AFTER_NS:
        _keep(kept, {"state": state, "sha256": sha256})
    return sha256


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {
        "num_bytes": found.st_size,
        "inode": found.st_ino,
        "device": found.st_dev,
        "written_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }


def _keep(kept: Path, content: dict[str, object]) -> None:
    """A cache that cannot be written only costs time."""
    from data_schemas.storage import write_atomically

    with contextlib.suppress(OSError):
        write_atomically(kept, json.dumps(content))
