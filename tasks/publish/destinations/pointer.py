"""Which version of a release a place serves (`current`), which ones were taken from service by hand (`rolled_back`), and which ones
publishing kept but did not serve (`held_back`).

A rollback writes `rolled_back` before it moves `current`. A publisher reads `current`, then `rolled_back`, and replaces `current`
only if it still holds what was read. So in either order, publishing an unchanged release does not undo a rollback; and a
rollback that is killed between the two writes leaves the served version as it was.
"""

from __future__ import annotations

import enum

from data_schemas.errors import UserError
from data_schemas.releases import current_key, held_back_key, is_digest, parse_pointer, rolled_back_key
from tasks.publish.destinations.version import Place

_TRIES = 8


class Pointed(enum.Enum):
    """The outcome of a request to serve a version."""

    MOVED = "is served now"
    UNMOVED = "was served already"
    ROLLED_BACK = "was rolled back, so it is not served"
    HELD_BACK = "was kept, but is not served"


def held_back(place: Place, name: str) -> frozenset[str]:
    """Digests that publishing kept at `place` but did not serve."""
    return _parse(place.read(held_back_key(name)))


def rolled_back(place: Place, name: str) -> frozenset[str]:
    """Digests that rollbacks of `name` took from service."""
    return _parse(place.read(rolled_back_key(name)))


def serve_published(place: Place, name: str, digest: str) -> Pointed:
    """Serve a version that is there, unless a rollback took it from service."""
    path = current_key(name)
    for _ in range(_TRIES):
        seen = place.read(path)
        if parse_pointer(seen) == digest:
            return Pointed.UNMOVED
        if digest in rolled_back(place, name):
            return Pointed.ROLLED_BACK
        if place.swap(path, f"{digest}\n".encode(), seen):
            _change(place, held_back_key(name), drop=digest)
            return Pointed.MOVED
    raise _moved_by_others(place, path)


def hold_back(place: Place, name: str, digest: str) -> Pointed:
    """Mark a version that is there as not to be served. One that is served already stays so."""
    if parse_pointer(place.read(current_key(name))) == digest:
        return Pointed.UNMOVED
    _change(place, held_back_key(name), add=digest)
    return Pointed.HELD_BACK


def how_to_serve(where: str, name: str, digest: str) -> str:
    """Why a rolled-back version is not served, and the command that serves it."""
    return f"{digest} was rolled back, so it is not served: `ropeway rollback {name} {digest} --at {where}` serves it again"


def serve_by_hand(place: Place, name: str, digest: str) -> str | None:
    """Serve `digest` and mark the version served before as rolled back; returns its digest, None if nothing was served."""
    path = current_key(name)
    for _ in range(_TRIES):
        seen = place.read(path)
        before = parse_pointer(seen)
        _change(place, rolled_back_key(name), add=before if before != digest else None, drop=digest)
        if before == digest or place.swap(path, f"{digest}\n".encode(), seen):
            _change(place, held_back_key(name), drop=digest)
            return before
    raise _moved_by_others(place, path)


def _change(place: Place, path: str, add: str | None = None, drop: str | None = None) -> None:
    """Add a digest to a list of digests, or take one out; nothing is written if the list stays the same."""
    for _ in range(_TRIES):
        seen = place.read(path)
        there = _parse(seen)
        wanted = (there | ({add} if add else set())) - ({drop} if drop else set())
        if wanted == there or place.swap(path, "".join(f"{one}\n" for one in sorted(wanted)).encode(), seen):
            return
    raise _moved_by_others(place, path)


def _parse(raw: bytes | None) -> frozenset[str]:
    """The digests in such a file; anything else in it was not written by Ropeway and is ignored."""
    words = (raw or b"").decode("utf-8", errors="replace").split()
    return frozenset(word for word in words if is_digest(word))


def _moved_by_others(place: Place, path: str) -> UserError:
    return UserError(f"Others keep changing {place.uri}/{path}: try again when they have finished.")
