"""Any fsspec URI that holds releases, such as s3://bucket/models.

An object store has no rename, so a version's files are written under their final names. SHA256SUMS comes first, because it says
which bytes the version will have, and the manifest last; both by a write that fails if the object exists. Two publishers of one
digest with the same bytes may both write; of two with different bytes the second is refused. Only S3 and GCS have such
conditional writes here. Elsewhere two publishers that start at the same moment may not see each other, but every file is read
back and compared before `current` moves. A killed multipart upload leaves no object in S3; the bucket's lifecycle rule for
incomplete uploads removes its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, file_differences
from data_schemas.remote import Remote
from tasks.publish.checksums import CHECKSUMS
from tasks.publish.destinations.version import Version, refuse_other


class ObjectPlace:
    """Credentials and endpoint come from the environment, as for remote storage."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @property
    def uri(self) -> str:
        return self._remote.uri

    def sizes(self, folder: str = "") -> dict[str, int]:
        return self._remote.sizes(folder)

    def read(self, path: str) -> bytes | None:
        return self._remote.read(path)

    def sha256(self, path: str) -> str:
        return self._remote.sha256(path)

    def written_at(self, path: str) -> datetime | None:
        return self._remote.written_at(path)

    def put(self, version: Version) -> bool:
        there = self.sizes(version.key)
        if MANIFEST_NAME in there:
            refuse_other(self, version)
            return False
        self._refuse_strangers(version, there)
        self._claim(version)
        for entry in version.manifest.files:
            here = {entry.path: there[entry.path]} if entry.path in there else {}
            if entry.path != CHECKSUMS and file_differences([entry], here, self._sha256_in(version)):
                self._upload(version, entry.path)
        self._require_whole(version)
        self._finish(version)
        return True

    def swap(self, path: str, content: bytes, seen: bytes | None) -> bool:
        return self._remote.swap(path, content, seen)

    def _sha256_in(self, version: Version) -> Callable[[str], str]:
        return lambda path: self.sha256(f"{version.key}/{path}")

    def _refuse_strangers(self, version: Version, there: dict[str, int]) -> None:
        if strange := sorted(there.keys() - {entry.path for entry in version.manifest.files}):
            raise UserError(
                f"{self.uri}/{version.key} is incomplete and holds files that are not in this release ({', '.join(strange[:5])}): "
                "delete that folder there and publish again."
            )

    def _claim(self, version: Version) -> None:
        content = (version.folder / CHECKSUMS).read_bytes()
        if self._remote.create(f"{version.key}/{CHECKSUMS}", content):
            return
        if self.read(f"{version.key}/{CHECKSUMS}") != content:
            raise UserError(
                f"Another publisher has started to write other files to {self.uri}/{version.key}: wait until it has finished; if none "
                "is running, delete that folder there and publish again."
            )

    def _upload(self, version: Version, path: str) -> None:
        self._remote.upload(version.folder / path, f"{version.key}/{path}")

    def _require_whole(self, version: Version) -> None:
        """Read everything back: an ETag proves nothing, as it is not a hash for multipart uploads."""
        if problems := file_differences(version.manifest.files, self.sizes(version.key), self._sha256_in(version)):
            raise UserError(
                f"The copy at {self.uri}/{version.key} differs from the release ({'; '.join(problems[:5])}): "
                f"check {version.folder} with `ropeway verify`, then publish again."
            )

    def _finish(self, version: Version) -> None:
        path = f"{version.key}/{MANIFEST_NAME}"
        self._remote.create(path, version.manifest_bytes)
        if self.read(path) != version.manifest_bytes:
            raise UserError(
                f"Another publisher of other files wrote {self.uri}/{path}: delete {self.uri}/{version.key} and publish again."
            )
