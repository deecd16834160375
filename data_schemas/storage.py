"""Content-addressed artifacts below one storage root.

<root>/documents/<digest>/  shards/<digest>/  checkpoints/<digest>/  evaluations/<digest>/
<root>/releases/<name>/versions/<digest>/   and   releases/<name>/current
<root>/runs/<run_name>.json
<root>/.staging/   half-made artifacts; what a crash leaves there is removed by the next run
    <root>/.locks/     one file an artifact, locked while it is made
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_schemas.errors import UserError, is_disk_full
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
        name = f"{kind.replace('/', '-')}-{digest}"
        try:
            with self._locked(name):
                return self.find(kind, digest) or self._build(
                    self.directory(kind, digest), name, (stage, params, code_version, parents, digest), make
                )
        except UserError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise UserError(
                    f"No space left while writing {kind} below {self.root} (or in the temporary folder): "
                    "free some, then run again; finished stages are kept."
                ) from error
            raise

    def _build(
        self,
        final: Path,
        name: str,
        identity: tuple[str, dict[str, Any], int, dict[str, str], str],
        make: Callable[[Path], dict[str, Any]],
    ) -> Artifact:
        stage, params, code_version, parents, digest = identity
        staging = self.root / ".staging" / name
        shutil.rmtree(staging, ignore_errors=True)  # the lock is ours, so what stands there is debris
        staging.mkdir(parents=True)
        try:
            manifest = Manifest(
                stage=stage,
                params=params,
                code_version=code_version,
                parents=parents,
                digest=digest,
                summary=make(staging),
                files=file_entries(staging),
            )
            write_atomically(staging / MANIFEST_NAME, manifest.model_dump_json(indent=1))
            fsync_tree(staging)
            self._move_into_place(staging, final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Artifact(final, manifest, reused=False)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock on one artifact's making; a second run of the same waits and then finds it.

        The kernel frees the lock of a killed process. Staging folders whose lock is free are debris and removed.
        """
        locks = self.root / ".locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot write below the storage root {self.root}: {error.strerror}. Give another `storage`."
            ) from error
        with (locks / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for debris in (self.root / ".staging").glob("*"):
                if debris.name != name:
                    self._remove_if_unlocked(debris)
            yield

    def _remove_if_unlocked(self, staging: Path) -> None:
        with (self.root / ".locks" / staging.name).open("w") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(staging, ignore_errors=True)

    def _move_into_place(self, staging: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # debris: a folder with a valid manifest would have been found
            shutil.rmtree(final)
        staging.rename(final)

    def record_run(self, run_name: str, record: dict[str, Any]) -> None:
        """Write runs/<run_name>.json: which digests this run used."""
        write_atomically(self.root / "runs" / f"{run_name}.json", json.dumps(record, indent=1))

    def recorded_run(self, run_name: str) -> dict[str, Any]:
        """What `record_run` wrote; empty where there is nothing."""
        try:
            record: dict[str, Any] = json.loads((self.root / "runs" / f"{run_name}.json").read_text())
        except (OSError, json.JSONDecodeError):
            return {}
        return record
