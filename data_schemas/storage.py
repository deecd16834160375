"""Content-addressed artifacts below one storage root.

<root>/documents/<digest>/  shards/<digest>/  checkpoints/<digest>/  evaluations/<digest>/
<root>/releases/   see `data_schemas.releases`
<root>/runs/<run_name>.json
<root>/.staging/   unfinished artifacts; the next run removes what a crash left
<root>/.parts/     files that workers write for each other; they survive a kill, so that the next run continues from there
<root>/.locks/     one file for each artifact or folder of parts, locked while it is made

A remote root (`s3://...`) has a mirror, a folder of this machine in which artifacts are made and read. The objects below the
root are the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_schemas.addresses import is_remote, local_path
from data_schemas.cache_folder import cache_folder
from data_schemas.errors import UserError, is_disk_full
from data_schemas.locks import locked, locked_at_once
from data_schemas.manifest import MANIFEST_NAME, Manifest, damaged_files, file_entries, file_sizes, stage_digest
from data_schemas.modes import follow_umask
from data_schemas.parts import Parts
from data_schemas.progress import message, print_progress
from data_schemas.remote import Remote
from data_schemas.spelling import refuse_misspelt

_PARTS = ".parts"
_STALE_AFTER_S = 7 * 86_400
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Artifact:
    """The files of a finished stage. `reused`: this run found them and made nothing."""

    folder: Path
    manifest: Manifest
    reused: bool
    remote: Remote | None = None
    kind: str = ""

    @property
    def path(self) -> Path:
        """Folder of this machine with the files. A remote artifact's files are downloaded at the first use."""
        if self.remote is not None:
            for entry in self.manifest.files:
                file = self.folder / entry.path
                if not file.is_file() or file.stat().st_size != entry.num_bytes:
                    self.remote.download(f"{self.kind}/{self.digest}/{entry.path}", file)
            if read_manifest(self.folder) is None:
                write_atomically(self.folder / MANIFEST_NAME, self.manifest.model_dump_json(indent=1))
        return self.folder

    @property
    def location(self) -> str:
        """Where every machine finds the artifact: the folder, or the remote URI."""
        return f"{self.remote.uri}/{self.kind}/{self.digest}" if self.remote else str(self.folder)

    def as_parts(self) -> Parts:
        """The files, for workers that may be on other machines."""
        return Parts(self.location)

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def check(self) -> None:
        """Compare every file with its recorded hash. UserError names the files that differ."""
        if problems := damaged_files(self.path, self.manifest):
            raise UserError(
                f"The artifact {self.path} is damaged: {'; '.join(problems[:5])}. Delete that folder and run again to rebuild it."
            )


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file with `text`. A reader sees the old content or the new, never a part of it."""
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
    """Flush every file and folder below `directory` to the disk."""
    for folder, _, names in os.walk(directory):
        for name in (*names, "."):
            handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of `directory`; None if it is missing or invalid."""
    try:
        return _parsed((directory / MANIFEST_NAME).read_bytes())
    except OSError:
        return None


def mirror_of(uri: str) -> Path:
    """The folder of this machine that mirrors a remote root, below the cache folder."""
    return cache_folder().resolve() / hashlib.sha256(uri.encode()).hexdigest()[:16]


class Storage:
    """The storage root: a local folder, or a remote URI and its mirror. `root` is the folder of this machine."""

    def __init__(self, root: str) -> None:
        refuse_misspelt(root, "The storage")
        self.remote = Remote(root) if is_remote(root) else None
        self.root = mirror_of(self.remote.uri) if self.remote else local_path(root).resolve()

    def directory(self, kind: str, digest: str) -> Path:
        """Where an artifact of `kind` (such as "shards" or "releases/NAME/versions") lives on this machine."""
        if not _SAFE_NAME.fullmatch(kind) or not re.fullmatch(r"[0-9a-f]{8,64}", digest):
            raise ValueError(f"not an artifact's name: {kind!r} / {digest!r}")
        return self.root / kind / digest

    def local(self, location: str) -> Path:
        """The folder of this machine for an artifact's `location`."""
        return self.root / location.removeprefix(self.remote.uri).lstrip("/") if self.remote else Path(location)

    def find(self, kind: str, digest: str) -> Artifact | None:
        """The finished artifact, or None. UserError if one of its files is missing or has another size."""
        path = self.directory(kind, digest)
        if self.remote is None:
            manifest = read_manifest(path)
            sizes = file_sizes(path, manifest.files) if manifest else {}
        else:
            manifest = _parsed(self.remote.read(f"{kind}/{digest}/{MANIFEST_NAME}"))
            sizes = self.remote.sizes(f"{kind}/{digest}") if manifest else {}
        if manifest is None or manifest.digest != digest:
            return None
        artifact = Artifact(path, manifest, reused=True, remote=self.remote, kind=kind)
        for entry in manifest.files:
            if sizes.get(entry.path) != entry.num_bytes:
                raise UserError(
                    f"The artifact {artifact.location} is damaged: {entry.path} is missing or has another size than recorded. "
                    "Delete that folder and run again to rebuild it."
                )
        return artifact

    def manifests(self, kind: str) -> Iterator[Manifest]:
        """The manifests of all finished artifacts of `kind`, in the order of their digests. Their files are not looked at."""
        if self.remote is None:
            folders = sorted(path for path in (self.root / kind).glob("*") if path.is_dir())
            named = ((folder.name, read_manifest(folder)) for folder in folders)
        else:
            names = sorted(name for name in self.remote.sizes(kind) if re.fullmatch(rf"[0-9a-f]+/{MANIFEST_NAME}", name))
            named = ((name.partition("/")[0], _parsed(self.remote.read(f"{kind}/{name}"))) for name in names)
        yield from (manifest for digest, manifest in named if manifest is not None and manifest.digest == digest)

    @contextlib.contextmanager
    def parts(self, key: str, on_other_machines: bool) -> Iterator[Parts]:
        """The place where the workers that make one artifact put their parts.

        Parts survive every exit except a full disk, so that the next run continues from them; `drop_parts` removes them once the
        artifact is finished. Only one run at a time can use them; another one waits.

        Args:
            key: digest of everything that determines the parts.
            on_other_machines: whether workers run elsewhere. With a remote root the place is then a prefix below that root,
                otherwise a folder of this machine.
        """
        name = f"parts-{key}"
        with self._locked(name):
            self._remove_stale_parts()
            if self.remote is not None and on_other_machines:
                yield Parts(f"{self.remote.uri}/{_PARTS}/{key}")
                return
            folder = self.root / _PARTS / key
            try:
                yield Parts(str(folder))
            except BaseException as error:
                if is_disk_full(error):
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def drop_parts(self, key: str, *, was_finished: bool = False) -> None:
        """Remove the parts under `key`, here and in remote storage.

        `was_finished`: the artifact was found, so parts are only there if a run was killed between finishing it and this call; they are
        left if another run uses them.
        """
        folder = self.root / _PARTS / key
        if was_finished:
            if folder.is_dir():
                self._remove_if_unlocked(folder, f"parts-{key}")
            return
        with self._locked(f"parts-{key}"):
            shutil.rmtree(folder, ignore_errors=True)
            if self.remote is not None:
                self.remote.remove(f"{_PARTS}/{key}")

    def _remove_stale_parts(self) -> None:
        if self.remote is not None:
            self.remote.remove_stale(_PARTS, _STALE_AFTER_S)
        for folder in (self.root / _PARTS).glob("*"):
            if time.time() - folder.stat().st_mtime > _STALE_AFTER_S:
                self._remove_if_unlocked(folder, f"parts-{folder.name}")

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
        final name only when it is complete, by one rename. If `make` raises, nothing is left; a full disk becomes a UserError.
        """
        digest = stage_digest(stage, params, code_version, parents)
        if found := self.find(kind, digest):
            return found
        name = f"{kind.replace('/', '-')}-{digest}"
        try:
            with self._locked(name):
                if found := self.find(kind, digest):
                    return found
                path = self.directory(kind, digest)
                manifest = self._made_and_not_uploaded(path, digest)
                if self.remote:
                    self.remote.refuse_unwritable()
                if manifest is None:
                    try:
                        manifest = self._build(path, name, (stage, params, code_version, parents, digest), make)
                    except Exception:
                        if found := self._made_meanwhile(kind, digest):
                            return found
                        raise
                if self.remote:
                    self._upload(path, f"{kind}/{digest}", manifest)
                return Artifact(path, manifest, reused=False, remote=self.remote, kind=kind)
        except UserError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise UserError(
                    f"No space left while writing {kind} to {self.root} (or to the temporary folder): "
                    "free some space and run again; finished stages are kept."
                ) from error
            raise

    def _build(
        self,
        final: Path,
        name: str,
        identity: tuple[str, dict[str, Any], int, dict[str, str], str],
        make: Callable[[Path], dict[str, Any]],
    ) -> Manifest:
        stage, params, code_version, parents, digest = identity
        staging = self.root / ".staging" / name
        shutil.rmtree(staging, ignore_errors=True)  # this process holds the lock, so the folder is debris of a crash
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
            follow_umask(staging)
            fsync_tree(staging)
            self._move_into_place(staging, final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return manifest

    def _made_meanwhile(self, kind: str, digest: str) -> Artifact | None:
        """The artifact, if another machine has finished it on the same remote root and so removed the parts that this run needs."""
        with contextlib.suppress(UserError):
            return self.find(kind, digest) if self.remote else None
        return None

    def _made_and_not_uploaded(self, path: Path, digest: str) -> Manifest | None:
        """The manifest of an artifact in the mirror whose upload a killed run did not finish; else None."""
        manifest = read_manifest(path) if self.remote else None
        if manifest is None or manifest.digest != digest or damaged_files(path, manifest):
            return None
        return manifest

    def _upload(self, path: Path, folder: str, manifest: Manifest) -> None:
        assert self.remote is not None
        self.remote.upload_files(path, folder, manifest.files)
        self.remote.write(f"{folder}/{MANIFEST_NAME}", (path / MANIFEST_NAME).read_bytes())

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock on making one artifact. A second run says whom it waits for, and then finds the artifact.

        The kernel frees the lock of a killed process. Staging folders whose lock is free are removed as debris.
        """
        locks = self.root / ".locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot write to the storage {self.root} ({error.strerror}): change its permissions, or set another `storage`."
            ) from error
        with locked(
            locks / name, lambda holder: print_progress(message(f"waiting for {holder}, which makes {_in_words(name)}"))
        ):
            for debris in (self.root / ".staging").glob("*"):
                if debris.name != name:
                    self._remove_if_unlocked(debris, debris.name)
            yield

    def _remove_if_unlocked(self, folder: Path, lock_name: str) -> None:
        with locked_at_once(self.root / ".locks" / lock_name) as is_free:
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)

    def _move_into_place(self, staging: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # debris: a folder with a valid manifest would have been found
            shutil.rmtree(final)
        staging.rename(final)

    def record_run(self, run_name: str, record: dict[str, Any]) -> None:
        """Write runs/<run_name>.json: which digests this run used."""
        text = json.dumps(record, indent=1)
        if self.remote:
            self.remote.write(f"runs/{run_name}.json", text.encode())
        else:
            write_atomically(self.root / "runs" / f"{run_name}.json", text)

    def recorded_run(self, run_name: str) -> dict[str, Any]:
        """What `record_run` wrote; empty if there is no record."""
        name = f"runs/{run_name}.json"
        try:
            text = self.remote.read(name) or b"{}" if self.remote else (self.root / name).read_bytes()
            record: dict[str, Any] = json.loads(text)
        except (OSError, json.JSONDecodeError):
            return {}
        return record


def _in_words(lock_name: str) -> str:
    kind, _, digest = lock_name.rpartition("-")
    return f"the same {kind} ({digest[:12]})"


def _parsed(manifest: bytes | None) -> Manifest | None:
    try:
        return Manifest.model_validate_json(manifest) if manifest is not None else None
    except ValidationError:
        return None
