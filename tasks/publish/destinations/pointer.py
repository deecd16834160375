"""Which version of a release a place serves, and which ones were taken from service by hand.

<name>/current       the digest that is served
<name>/rolled_back   digests that a rollback left, one a line; publishing one of them again does not serve it

A rollback writes `rolled_back` before it moves `current`, and a publisher reads it after `current`, which it then replaces only
if that still holds what was read. So whatever order the two come in, a rollback is not undone by a run with nothing new; and
a rollback that is killed between the two leaves what is served as it was.
"""

from __future__ import annotations

import enum

from data_schemas.errors import UserError
from data_schemas.releases import CURRENT, DIGEST, parse_pointer
from tasks.publish.destinations.version import Place

ROLLED_BACK = "rolled_back"
_TRIES = 8


class Pointed(enum.Enum):
    """What became of a request to serve a version."""

    MOVED = "is served now"
    UNMOVED = "was served already"
    ROLLED_BACK = "was rolled back from, and is left so"


def rolled_back(place: Place, name: str) -> frozenset[str]:
    """Digests that a rollback of `name` left."""
    return _parse(place.read(f"{name}/{ROLLED_BACK}"))


def serve_published(place: Place, name: str, digest: str) -> Pointed:
    """Serve a version that was just published or found there, unless it was rolled back from."""
    path = f"{name}/{CURRENT}"
    for _ in range(_TRIES):
        seen = place.read(path)
        if parse_pointer(seen) == digest:
            return Pointed.UNMOVED
        if digest in rolled_back(place, name):
            return Pointed.ROLLED_BACK
        if place.swap(path, f"{digest}\n".encode(), seen):
            return Pointed.MOVED
    raise _moved_by_others(place, path)


def how_to_serve(where: str, name: str, digest: str) -> str:
    """What to say of a version that is left rolled back."""
    return f"a rollback left {digest}, so it is not served: `ropeway rollback {name} {digest} --at {where}` serves it again"


def serve_by_hand(place: Place, name: str, digest: str) -> str | None:
    """Serve `digest`, and leave what was served before rolled back; that digest, or None where nothing was served."""
    path = f"{name}/{CURRENT}"
    for _ in range(_TRIES):
        seen = place.read(path)
        before = parse_pointer(seen)
        _change_rolled_back(place, name, add=before if before != digest else None, drop=digest)
        if before == digest or place.swap(path, f"{digest}\n".encode(), seen):
            return before
    raise _moved_by_others(place, path)


def _change_rolled_back(place: Place, name: str, add: str | None, drop: str) -> None:
    path = f"{name}/{ROLLED_BACK}"
    for _ in range(_TRIES):
        seen = place.read(path)
        there = _parse(seen)
        wanted = (there | ({add} if add else set())) - {drop}
        if wanted == there or place.swap(path, "".join(f"{one}\n" for one in sorted(wanted)).encode(), seen):
            return
    raise _moved_by_others(place, path)


def _parse(raw: bytes | None) -> frozenset[str]:
    """Whatever is no digest was not written here, and counts for nothing."""
    words = (raw or b"").decode("utf-8", errors="replace").split()
    return frozenset(word for word in words if DIGEST.fullmatch(word))


def _moved_by_others(place: Place, path: str) -> UserError:
    return UserError(f"{place.uri}/{path} is being moved by others all the time: try again when they have finished.")
