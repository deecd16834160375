"""Pushing finished shards: to the hub as a data set, in one commit, or to an fsspec URI as part of a storage there."""

from __future__ import annotations

from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, file_differences
from data_schemas.remote import Remote
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.version import Version, read_version

_NAME = "shards"


def push_shards(folder: Path, where: str, *, private: bool = True) -> str:
    """Copy the finished shards in `folder` to `where`, compare every file there, and return their address.

    `hub:org/name` becomes a data set: one commit and a tag named by the digest; a new repository is private if `private`. Any fsspec
    URI gets the shards as URI/shards/DIGEST, their manifest last, where `ropeway inspect` finds them. Shards that are there already
    are compared and not written again. Credentials come from the environment. UserError where that is not possible.
    """
    version = read_version(_NAME, folder)
    if version.manifest.stage != "prepare":
        raise UserError(
            f"{folder} is the result of the stage {version.manifest.stage!r}, not shards: give STORAGE/shards/DIGEST."
        )
    place = place_at(where)
    if isinstance(place, HubPlace):
        return HubPlace(place.repo_id, repo_type="dataset").put(version, pull_request=False, private=private).url
    if "://" not in where:
        raise UserError(
            f"{where} is a folder: copy {folder} there, or give hub:organisation/name or a URI such as s3://bucket/folder."
        )
    return _push_to_uri(version, Remote(where))


def _push_to_uri(version: Version, remote: Remote) -> str:
    key = f"{_NAME}/{version.digest}"
    there = remote.read(f"{key}/{MANIFEST_NAME}")
    if there is not None and there != version.manifest_bytes:
        raise UserError(
            f"{remote.uri}/{key} has another manifest: finished shards are not overwritten, so delete that folder there, or give another."
        )
    remote.upload_files(version.folder, key, version.manifest.files)
    problems = file_differences(
        version.manifest.files, remote.sizes(key), lambda path: remote.sha256(f"{key}/{path}"), besides=(MANIFEST_NAME,)
    )
    if problems:
        raise UserError(
            f"The copy at {remote.uri}/{key} differs from the shards ({'; '.join(problems[:5])}): check {version.folder} with "
            "`ropeway inspect`, then push again."
        )
    remote.write(f"{key}/{MANIFEST_NAME}", version.manifest_bytes)
    return f"{remote.uri}/{key}"
