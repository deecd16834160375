"""A repository of the Hugging Face hub, of a model or a data set: a release is one commit, or one pull request, and a tag named by
its digest.

A tagged revision holds exactly the files of the release and the hub's own `.gitattributes`. A commit names its parent, so the hub
refuses it if another publisher committed first. Every attempt first looks at the state of the repository, so a commit that
succeeded although its answer was lost is not repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME, file_differences, hash_file
from data_schemas.releases import is_digest
from tasks.publish.checksums import HUBS_OWN
from tasks.publish.destinations.hub_client import MOVED, may_be_tried_again, quiet_client, reason_of, status_of
from tasks.publish.destinations.version import Version, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import HfApi, RepoFile

_TRIES = 4


@dataclass(frozen=True)
class HubState:
    """`head` is the commit of `main`, None if there is no such repository; `tags` the commit of each release, by its digest."""

    head: str | None
    tags: dict[str, str]


@dataclass(frozen=True)
class HubRelease:
    """A release at a tag: its manifest and git's id of it (None: there is none), bytes by path, time of the commit."""

    manifest: bytes | None
    manifest_id: str | None
    sizes: dict[str, int]
    created: datetime


@dataclass(frozen=True)
class HubPut:
    """`revision` is the release's tag, or the reference of its open pull request; `url` is its page.

    `is_served` is False if it was there before and `main` has another version since.
    """

    revision: str
    url: str
    is_new: bool
    is_served: bool = True


class HubPlace:
    """The repository `repo_id`, of a model unless `repo_type` is "dataset".

    Without `token`, HF_TOKEN of the environment is used; HF_ENDPOINT names another hub.
    """

    def __init__(self, repo_id: str, token: SecretStr | None = None, repo_type: Literal["model", "dataset"] = "model") -> None:
        self.repo_id = repo_id
        self._type = repo_type
        self._given = token

    @property
    def uri(self) -> str:
        return f"hub:{self.repo_id}"

    def require_token(self) -> None:
        """UserError if there is no token, or a malformed one, which an HTTP client would quote in its error."""
        if not re.fullmatch(r"[!-~]+", self._token):
            raise UserError(
                f"Publishing to {self.uri} needs a token: set HF_TOKEN in the environment to one with write access, or set "
                "`publish.token_secret` to the name of a Prefect Secret block that holds one."
            )

    @property
    def api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=self._token or False)

    @property
    def _token(self) -> str:
        return (self._given.get_secret_value() if self._given else os.environ.get("HF_TOKEN", "")).strip()

    def state(self) -> HubState:
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._told():
            try:
                refs = self.api.list_repo_refs(self.repo_id, repo_type=self._type)
            except RepositoryNotFoundError:
                return HubState(None, {})
        heads = [branch.target_commit for branch in refs.branches if branch.name == "main"]
        return HubState(heads[0] if heads else None, {tag.name: tag.target_commit for tag in refs.tags if is_digest(tag.name)})

    def put(self, version: Version, *, pull_request: bool, private: bool) -> HubPut:
        """Upload, check and tag the release. A missing repository is created, private if `private`.

        With `pull_request`, a pull request is opened, or an open one found, and checked. It is tagged when the release is published
        again after the merge.
        """
        self.require_token()
        for number in range(1, _TRIES + 1):
            try:
                return self._put(version, pull_request, private)
            except Exception as error:
                if number == _TRIES or not may_be_tried_again(error):
                    with self._told():
                        raise
                time.sleep(0.5 * 2**number if status_of(error) not in MOVED else 0.1)
        raise AssertionError("unreachable")

    def served(self, head: str) -> str | None:
        """Git's id of the manifest at a commit, which identifies the release there; None if there is none."""
        with self._told():
            manifest = self._tree(head).get(MANIFEST_NAME)
            return manifest.blob_id if manifest else None

    def released(self, tag: str) -> HubRelease:
        """The release at a tag."""
        with self._told(), tempfile.TemporaryDirectory() as folder:
            tree = self._tree(tag)
            manifest = None
            if MANIFEST_NAME in tree:
                file = self.api.hf_hub_download(
                    self.repo_id, MANIFEST_NAME, revision=tag, local_dir=folder, repo_type=self._type
                )
                manifest = Path(file).read_bytes()
            created = self.api.list_repo_commits(self.repo_id, revision=tag, repo_type=self._type)[0].created_at
            sizes = {path: file.size for path, file in tree.items() if path not in HUBS_OWN}
            return HubRelease(manifest, tree[MANIFEST_NAME].blob_id if manifest else None, sizes, created)

    def problems(self, version: Version, revision: str) -> list[str]:
        """How the files at a revision differ from the release, by the sizes and hashes that the hub states; nothing is downloaded."""
        there = self._tree(revision)
        sizes = {path: file.size for path, file in there.items()}
        return file_differences(
            version.entries, sizes, lambda path: _sha256(there[path], version.folder / path), besides=HUBS_OWN
        )

    def _put(self, version: Version, pull_request: bool, private: bool) -> HubPut:
        state = self.state()
        if state.head is None:
            self.api.create_repo(self.repo_id, private=private, exist_ok=True, repo_type=self._type)
            state = self.state()
        if state.head is None:
            raise UserError(f"{self.uri} has no branch `main`: create it there, then publish again.")
        if version.digest in state.tags:
            self._require_same(version, version.digest)
            is_served = not self.problems(version, state.head)
            return HubPut(version.digest, self._url(version.digest), is_new=False, is_served=is_served)
        if self.problems(version, state.head):
            if pull_request:
                return self._pull_request(version, state.head)
            commit = self._commit(version, state.head, create_pr=False).oid
            self._require_same(version, commit)
        else:
            commit = state.head
        self.api.create_tag(self.repo_id, tag=version.digest, revision=commit, exist_ok=True, repo_type=self._type)
        self._require_same(version, version.digest)
        return HubPut(version.digest, self._url(version.digest), is_new=True)

    def _tree(self, revision: str) -> dict[str, RepoFile]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision, repo_type=self._type)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _pull_request(self, version: Version, head: str) -> HubPut:
        found = self.api.get_repo_discussions(
            self.repo_id, discussion_type="pull_request", discussion_status="open", repo_type=self._type
        )
        number = next((request.num for request in found if request.title == _title(version)), None)
        is_new = number is None
        if number is None:
            number = self._commit(version, head, create_pr=True).pr_num
        revision = f"refs/pr/{number}"
        self._require_same(version, revision)
        return HubPut(revision, f"{self._page}/discussions/{number}", is_new)

    def _commit(self, version: Version, parent: str, *, create_pr: bool) -> Any:
        """One commit on `parent` that makes the tree that of the release; the client uploads large files before it.

        UserError if the tree holds files that no release put there, because committing would delete them.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        paths = [*(entry.path for entry in version.manifest.files), MANIFEST_NAME]
        stale = self._tree(parent).keys() - set(paths) - set(HUBS_OWN)
        manifest = parse_manifest(self.released(parent).manifest)
        brought = {entry.path for entry in manifest.files} | {MANIFEST_NAME} if manifest else set()
        if foreign := sorted(stale - brought):
            named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
            raise UserError(
                f"{self.uri} holds files that are not from a release ({named}), and publishing would delete them: remove them there "
                "first, or choose another repository."
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=version.folder / path) for path in paths),
            *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in sorted(stale)),
        ]
        with quiet_client():
            return self.api.create_commit(
                self.repo_id,
                operations,
                commit_message=_title(version),
                parent_commit=parent,
                create_pr=create_pr,
                repo_type=self._type,
            )

    def _require_same(self, version: Version, revision: str) -> None:
        if problems := self.problems(version, revision):
            raise UserError(
                f"{self.uri} at {revision} holds other files than this release ({'; '.join(problems[:5])}): find out who wrote it, "
                "remove that tag or pull request there and publish again."
            )

    def _url(self, revision: str) -> str:
        return f"{self._page}/tree/{revision}"

    @property
    def _page(self) -> str:
        return f"{self.api.endpoint}/{'datasets/' if self._type == 'dataset' else ''}{self.repo_id}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of the client into one sentence; the error stays its cause."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.uri}: {reason_of(error)}.") from error


def _title(version: Version) -> str:
    return f"Release {version.name} {version.digest}"


def _sha256(there: RepoFile, file: Path) -> str:
    """The SHA-256 of a file on the hub, "" if it differs from the local `file`.

    Of a large file the hub states it. Of a small one it states git's blob id, the SHA-1 of a header and the content; if the local
    file has the same, the two have the same content.
    """
    if there.lfs:
        return there.lfs.sha256
    return hash_file(file) if there.blob_id == _blob_id(file) else ""


def _blob_id(file: Path) -> str:
    hashed = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
