"""Content-addressed artifacts below one storage root.

<root>/documents/<digest>/  shards/<digest>/  checkpoints/<digest>/  evaluations/<digest>/
<root>/releases/<name>/versions/<digest>/   and   releases/<name>/current
<root>/runs/<run_name>.json
<root>/.staging/   half-made artifacts; what a crash leaves there is removed by the next run
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, Manifest, damaged_files, file_entries, stage_digest

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Artifact:
    """A finished stage's directory; `reused` says that this run found it and made nothing."""

    path: Path
    manifest: Manifest
    reused: bool

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def check(self) -> None:
        """Compare every file with its recorded hash; raise UserError naming those that differ."""
        if problems := damaged_files(self.path, self.manifest):
            raise UserError(
                f"The artifact {self.path} is damaged: {'; '.join(problems[:5])}. Delete that folder and run again to rebuild it."
            )


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file holding `text`: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def fsync_tree(directory: Path) -> None:
    """Force every file and folder below `directory` to the disk."""
    for folder, _, names in os.walk(directory):
        for name in (*names, "."):
            handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of `directory`, or None where there is none that can be read."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


class Storage:
    """The storage root. Only local folders so far; a remote URI is refused with one sentence."""

    def __init__(self, root: str) -> None:
        if "://" in root and not root.startswith("file://"):
            raise UserError(f"storage {root!r} is not a local folder: only local storage is supported so far, give a path.")
        self.root = Path(root.removeprefix("file://")).expanduser().resolve()

    def directory(self, kind: str, digest: str) -> Path:
        """Where an artifact of `kind` (such as "shards" or "releases/NAME/versions") lives."""
        if not _SAFE_NAME.fullmatch(kind) or not re.fullmatch(r"[0-9a-f]{8,64}", digest):
            raise ValueError(f"not an artifact's name: {kind!r} / {digest!r}")
        return self.root / kind / digest

    def find(self, kind: str, digest: str) -> Artifact | None:
        """The finished artifact, or None. UserError if a finished one has lost or shortened a file since."""
        path = self.directory(kind, digest)
        manifest = read_manifest(path)
        if manifest is None or manifest.digest != digest:
            return None
        for entry in manifest.files:
            file = path / entry.path
            if not file.is_file() or file.stat().st_size != entry.num_bytes:
                raise UserError(
                    f"The artifact {path} is damaged: {entry.path} is missing or has another size than recorded. "
                    "Delete that folder and run again to rebuild it."
                )
        return Artifact(path, manifest, reused=True)

    def build(
        self,
        kind: str,
        *,
        stage: str,
        params: dict[str, Any],
        code_version: int,
        parents: dict[str, str],
        make: Callable[[Path], dict[str, Any]],
    ) -> Artifact:
        """Find the artifact, or let `make` fill a staging folder and move that into place.

        `make` gets an empty folder and returns the manifest's `summary` (JSON values). The folder appears under its
        final name only when it is complete, by one rename. Errors of `make` leave nothing behind; a full disk becomes
        a UserError.
        """
        digest = stage_digest(stage, params, code_version, parents)
        if found := self.find(kind, digest):
            return found
        final = self.directory(kind, digest)
        staging = self._new_staging(f"{kind.replace('/', '-')}-{digest}")
        try:
            summary = make(staging)
            manifest = Manifest(
                stage=stage,
                params=params,
                code_version=code_version,
                parents=parents,
                digest=digest,
                summary=summary,
                files=file_entries(staging),
            )
            write_atomically(staging / MANIFEST_NAME, manifest.model_dump_json(indent=1))
            fsync_tree(staging)
            self._move_into_place(staging, final)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"No space left below {self.root} while writing {kind}: free some, then run again; finished stages are kept."
                ) from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Artifact(final, manifest, reused=False)

    def _new_staging(self, name: str) -> Path:
        base = self.root / ".staging"
        try:
            base.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot write below the storage root {self.root}: {error.strerror}. Give another `storage`."
            ) from error
        for debris in base.glob(f"{name}.*"):
            if not _is_alive(int(debris.suffix[1:])):
                shutil.rmtree(debris, ignore_errors=True)
        staging = base / f"{name}.{os.getpid()}"
        staging.mkdir()
        return staging

    def _move_into_place(self, staging: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and read_manifest(final) is None:
            shutil.rmtree(final)
        try:
            staging.rename(final)
        except OSError:
            if read_manifest(final) is None:  # otherwise another run finished the same artifact first
                raise

    def record_run(self, run_name: str, record: dict[str, Any]) -> None:
        """Write runs/<run_name>.json: which digests this run used."""
        write_atomically(self.root / "runs" / f"{run_name}.json", json.dumps(record, indent=1))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
