"""List the versions of every release, and go back to one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, Manifest
from data_schemas.releases import RELEASES, current_key, holds_releases, parse_pointer, parse_version_path, version_key
from data_schemas.storage import Storage
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.folder import FolderPlace
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.objects import ObjectPlace
from tasks.publish.destinations.pointer import held_back, rolled_back, serve_by_hand
from tasks.publish.destinations.version import Place, parse_manifest, problems_at


@dataclass(frozen=True)
class ReleaseRow:
    """One version. `created` is when its manifest was written there; None: unknown, because the version is incomplete.

    `is_rolled_back`: a rollback took it from service, so publishing it again does not serve it. `is_held_back`: publishing did not
    serve it, because its figures or the parameters forbade it.
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
    is_held_back: bool = False


@dataclass(frozen=True)
class Rollback:
    """`name` served `before` (None: nothing) and serves `now`."""

    name: str
    before: str | None
    now: str


def storage_place(storage: Storage) -> FolderPlace | ObjectPlace:
    """The releases of a storage; their layout is that of a destination."""
    return ObjectPlace(storage.remote.below(RELEASES)) if storage.remote else FolderPlace(storage.root / RELEASES)


def list_releases(where: Storage | str) -> list[ReleaseRow]:
    """All versions at a storage (an object, or its root), a destination or `hub:org/name`, by name and then newest first.

    On the hub, `name` is the repository's. UserError where the place cannot be read.
    """
    place = _place(where)
    if isinstance(place, FolderPlace) and isinstance(where, str) and not place.root.is_dir():
        raise UserError(f"There is no folder {place.root}: give a storage, a destination of releases, or hub:org/name.")
    return _hub_rows(place) if isinstance(place, HubPlace) else _rows(place)


def rollback(where: Storage | str, name: str, digest: str | None = None) -> Rollback:
    """Serve the version `digest` of `name`; None: the latest one before the current one that was neither
    rolled back nor held back.

    First every file of it is read and compared with its manifest and SHA256SUMS. UserError, and nothing changes, if there is no such
    version, if it is incomplete or altered, or if `where` is the hub. Publishing the version that was served before again does not
    serve it; only a rollback to it does.
    """
    place = _place(where)
    if isinstance(place, HubPlace):
        raise UserError(
            f"{place.uri} cannot be rolled back from here, because only its owner should change a repository's history: let users load the "
            "tag of a good version (`revision=` its digest), or revert the commit on the hub."
        )
    rows = [row for row in _rows(place) if row.name == name]
    if not rows:
        raise UserError(f"There is no release {name!r} at {place.uri}: list them with `ropeway releases`.")
    before = next((row.digest for row in rows if row.is_current), None)
    chosen = _matching(rows, digest, place) if digest else _previous(rows, name, place)
    if problems := problems_at(place, name, chosen):
        raise UserError(
            f"{name} stays at {before}: {place.uri}/{version_key(name, chosen)} is damaged ({'; '.join(problems[:5])}); choose another "
            "version, or delete it there and publish it again."
        )
    return Rollback(name, serve_by_hand(place, name, chosen), chosen)


def _place(where: Storage | str) -> FolderPlace | ObjectPlace | HubPlace:
    """The place of releases; the root of a storage is recognised by its `releases/NAME/versions`."""
    if isinstance(where, Storage):
        return storage_place(where)
    place = place_at(where)
    if isinstance(place, HubPlace):
        return place
    return storage_place(Storage(where)) if holds_releases(place.sizes(RELEASES)) else place


def _rows(place: Place) -> list[ReleaseRow]:
    versions: dict[tuple[str, str], dict[str, int]] = {}
    for path, size in place.sizes().items():
        if found := parse_version_path(path):
            name, digest, file = found
            versions.setdefault((name, digest), {})[file] = size
    current = {name: parse_pointer(place.read(current_key(name))) for name in {name for name, _ in versions}}
    left = {name: rolled_back(place, name) for name in current}
    kept = {name: held_back(place, name) for name in current}
    rows = [
        _row(place, name, digest, files, current[name] == digest, digest in left[name], digest in kept[name])
        for (name, digest), files in versions.items()
    ]
    return sorted(sorted(rows, key=_time, reverse=True), key=lambda row: row.name)


def _row(
    place: Place, name: str, digest: str, files: dict[str, int], is_current: bool, is_left: bool, is_kept: bool
) -> ReleaseRow:
    path = f"{version_key(name, digest)}/{MANIFEST_NAME}"
    manifest = parse_manifest(place.read(path)) if MANIFEST_NAME in files else None
    is_complete = manifest is not None and all(files.get(entry.path) == entry.num_bytes for entry in manifest.files)
    created = place.written_at(path) if manifest else None
    described = _described(manifest)
    return ReleaseRow(
        name, digest, created, is_current, is_complete, is_left and not is_current, *described, sum(files.values()),
        is_kept and not is_current,
    )  # fmt: skip


def _described(manifest: Manifest | None) -> tuple[str | None, int | None]:
    """Base and target length from the release's parameters."""
    if manifest is None:
        return None, None
    base: Any = manifest.params.get("base")
    target: Any = manifest.params.get("target_length")
    name = base.get("name") if isinstance(base, dict) else None
    return name if isinstance(name, str) else None, target if isinstance(target, int) else None


def _time(row: ReleaseRow) -> float:
    return row.created.timestamp() if row.created else 0.0


def _matching(rows: list[ReleaseRow], digest: str, place: Place) -> str:
    """The one version whose digest begins with `digest`; it may be incomplete, which is found later."""
    found = [row.digest for row in rows if row.digest.startswith(digest)] if len(digest) >= 6 else []
    if len(found) != 1:
        known = ", ".join(row.digest for row in rows)
        raise UserError(
            f"{digest!r} does not name exactly one version of {rows[0].name} at {place.uri}: give six or more digits of one of {known}."
        )
    return found[0]


def _previous(rows: list[ReleaseRow], name: str, place: Place) -> str:
    current = next((row for row in rows if row.is_current), None)
    if current is None:
        raise UserError(f"{name} at {place.uri} has no current version to go back from: give the digest of the one to serve.")
    earlier = [row for row in rows if row.is_complete and row is not current and _time(row) <= _time(current)]
    if not earlier:
        raise UserError(f"{name} at {place.uri} has no version before {current.digest}: there is nothing to go back to.")
    earlier = [row for row in earlier if not (row.is_rolled_back or row.is_held_back)]
    if not earlier:
        raise UserError(
            f"Every version of {name} at {place.uri} before {current.digest} was rolled back or never served: give the digest of the one "
            "to serve."
        )
    return max(earlier, key=_time).digest


def _hub_rows(place: HubPlace) -> list[ReleaseRow]:
    """One row a tag: its manifest is fetched, and its size is that of all its files."""
    state = place.state()
    if state.head is None:
        raise UserError(f"The repository {place.uri} cannot be read: check its name, and set HF_TOKEN if it is private.")
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
