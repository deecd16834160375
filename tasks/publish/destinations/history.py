"""Which versions of which releases there are, and going back to one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, Manifest
from data_schemas.releases import CURRENT, DIGEST, parse_pointer, version_key
from data_schemas.storage import Storage
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.objects import ObjectPlace
from tasks.publish.destinations.pointer import rolled_back, serve_by_hand
from tasks.publish.destinations.version import Place, parse_manifest, problems_at

_RELEASES = "releases"


@dataclass(frozen=True)
class ReleaseRow:
    """One version. `created` is when its manifest was written there; what an incomplete version does not say is None.

    `is_rolled_back`: a rollback left it, so that publishing it again does not serve it.
    """

    name: str
    digest: str
    created: datetime | None
    is_current: bool
    is_complete: bool
    is_rolled_back: bool
    base: str | None
    target_length: int | None
    num_bytes: int


@dataclass(frozen=True)
class Rollback:
    """`current` of `name` named `before` (None: nothing) and names `now`."""

    name: str
    before: str | None
    now: str


def storage_place(storage: Storage) -> FolderPlace | ObjectPlace:
    """The releases of a storage, which are laid out as at any destination."""
    return ObjectPlace(storage.remote.below(_RELEASES)) if storage.remote else FolderPlace(storage.root / _RELEASES)


def list_releases(where: Storage | str) -> list[ReleaseRow]:
    """All versions at a storage (an object, or its root), a destination or `hub:org/name`, by name and then newest first.

    On the hub, `name` is the repository's. UserError where the place cannot be read.
    """
    place = _place(where)
    if isinstance(place, FolderPlace) and isinstance(where, str) and not place.root.is_dir():
        raise UserError(f"There is no folder {place.root}: give a storage, a destination of releases, or hub:org/name.")
    return _hub_rows(place) if isinstance(place, HubPlace) else _rows(place)


def rollback(where: Storage | str, name: str, digest: str | None = None) -> Rollback:
    """Make the version `digest` of `name` the current one; None: the last one before the current one that no rollback left.

    Every file of it is read and compared with its manifest and SHA256SUMS first. UserError, and nothing moved, if there is no
    such version, if it is incomplete or altered, or if `where` is the hub. Publishing the version that was left again does not
    serve it; a rollback to it, or a version with another digest, ends that.
    """
    place = _place(where)
    if isinstance(place, HubPlace):
        raise UserError(
            f"{place.uri} cannot be rolled back from here, because a repository's history is its owner's: let users load the tag of the "
            "version that is good (`revision=` its digest), or revert the commit on the hub."
        )
    rows = [row for row in _rows(place) if row.name == name]
    if not rows:
        raise UserError(f"There is no release {name!r} at {place.uri}: `ropeway releases` lists what there is.")
    before = next((row.digest for row in rows if row.is_current), None)
    chosen = _matching(rows, digest, place) if digest else _previous(rows, name, place)
    if problems := problems_at(place, name, chosen):
        raise UserError(
            f"{name} stays at {before}: {place.uri}/{version_key(name, chosen)} is not whole ({'; '.join(problems[:5])}); choose another "
            "version, or delete it there and publish it again."
        )
    return Rollback(name, serve_by_hand(place, name, chosen), chosen)


def _place(where: Storage | str) -> FolderPlace | ObjectPlace | HubPlace:
    """A storage's root is known by its `releases/NAME/versions`; `releases/versions` is a release of that name."""
    if isinstance(where, Storage):
        return storage_place(where)
    place = place_at(where)
    if isinstance(place, HubPlace):
        return place
    inside = [path.split("/") for path in place.sizes(_RELEASES)]
    if any(parts[1:2] == ["versions"] for parts in inside) and not any(parts[0] == "versions" for parts in inside):
        return storage_place(Storage(where))
    return place


def _rows(place: Place) -> list[ReleaseRow]:
    versions: dict[tuple[str, str], dict[str, int]] = {}
    for path, size in place.sizes().items():
        name, _, rest = path.partition("/")
        folder, _, rest = rest.partition("/")
        digest, _, file = rest.partition("/")
        if folder == "versions" and file and DIGEST.fullmatch(digest):
            versions.setdefault((name, digest), {})[file] = size
    current = {name: parse_pointer(place.read(f"{name}/{CURRENT}")) for name in {name for name, _ in versions}}
    left = {name: rolled_back(place, name) for name in current}
    rows = [
        _row(place, name, digest, files, current[name] == digest, digest in left[name])
        for (name, digest), files in versions.items()
    ]
    return sorted(sorted(rows, key=_time, reverse=True), key=lambda row: row.name)


def _row(place: Place, name: str, digest: str, files: dict[str, int], is_current: bool, is_left: bool) -> ReleaseRow:
    path = f"{version_key(name, digest)}/{MANIFEST_NAME}"
    manifest = parse_manifest(place.read(path)) if MANIFEST_NAME in files else None
    is_complete = manifest is not None and all(files.get(entry.path) == entry.num_bytes for entry in manifest.files)
    created = place.written_at(path) if manifest else None
    described = _described(manifest)
    return ReleaseRow(
        name, digest, created, is_current, is_complete, is_left and not is_current, *described, sum(files.values())
    )


def _described(manifest: Manifest | None) -> tuple[str | None, int | None]:
    """Base and target length as the release's parameters record them."""
    if manifest is None:
        return None, None
    base: Any = manifest.params.get("base")
    target: Any = manifest.params.get("target_length")
    name = base.get("name") if isinstance(base, dict) else None
    return name if isinstance(name, str) else None, target if isinstance(target, int) else None


def _time(row: ReleaseRow) -> float:
    return row.created.timestamp() if row.created else 0.0


def _matching(rows: list[ReleaseRow], digest: str, place: Place) -> str:
    """The version whose digest begins so; one that is written out may be incomplete, which is then said."""
    found = [row.digest for row in rows if row.digest.startswith(digest)] if len(digest) >= 6 else []
    if len(found) != 1:
        known = ", ".join(row.digest for row in rows)
        raise UserError(f"No version of {rows[0].name} at {place.uri} is {digest!r} alone: there are {known}.")
    return found[0]


def _previous(rows: list[ReleaseRow], name: str, place: Place) -> str:
    current = next((row for row in rows if row.is_current), None)
    if current is None:
        raise UserError(f"{name} at {place.uri} has no current version to go back from: name the digest of the one to serve.")
    earlier = [row for row in rows if row.is_complete and row is not current and _time(row) <= _time(current)]
    if not earlier:
        raise UserError(f"{name} at {place.uri} has no version before {current.digest}: there is nothing to go back to.")
    earlier = [row for row in earlier if not row.is_rolled_back]
    if not earlier:
        raise UserError(
            f"Every version of {name} at {place.uri} before {current.digest} was rolled back from: name the digest of the one to serve."
        )
    return max(earlier, key=_time).digest


def _hub_rows(place: HubPlace) -> list[ReleaseRow]:
    """From the tags: each one's manifest is fetched, and its size is that of all files there."""
    state = place.state()
    if state.head is None:
        raise UserError(f"{place.uri} is no repository that can be read: check its name, or set HF_TOKEN if it is private.")
    served = place.served(state.head)
    rows = []
    for digest in state.tags:
        found = place.released(digest)
        manifest = parse_manifest(found.manifest)
        is_complete = manifest is not None and all(found.sizes.get(entry.path) == entry.num_bytes for entry in manifest.files)
        is_current = served is not None and found.manifest_id == served
        described = _described(manifest)
        num_bytes = sum(found.sizes.values())
        rows.append(ReleaseRow(place.repo_id, digest, found.created, is_current, is_complete, False, *described, num_bytes))
    return sorted(rows, key=_time, reverse=True)
