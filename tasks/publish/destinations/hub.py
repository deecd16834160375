"""A model repository of the Hugging Face hub: a release is one commit, or one pull request, and a tag named by its digest.

The tree of a tagged revision is the release and nothing else, but for the hub's own `.gitattributes`. A commit names the commit
it was made upon, so the hub refuses it when another publisher was faster; every try starts from what is there, so one that was
carried out although its answer was lost is found and not repeated.
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
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.manifest import MANIFEST_NAME
from data_schemas.releases import DIGEST
from tasks.publish.checksums import HUBS_OWN
from tasks.publish.destinations.hub_client import MOVED, may_be_tried_again, quiet_client, reason_of, status_of
from tasks.publish.destinations.version import Version, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import HfApi, RepoFile

_TRIES = 4


@dataclass(frozen=True)
class HubState:
    """The commit of `main` (None: no such repository), and the commit of each release's tag by its digest."""

    head: str | None
    tags: dict[str, str]


@dataclass(frozen=True)
class HubRelease:
    """At a tag: the manifest as it is written and git's id of it (None: there is none), bytes by path, time of the commit."""

    manifest: bytes | None
    manifest_id: str | None
    sizes: dict[str, int]
    created: datetime


@dataclass(frozen=True)
class HubPut:
    """Where a release stands: `revision` is its tag, or the reference of a pull request that waits at `url`.

    `is_served`: False where it was there before, and `main` serves another version since.
    """

    revision: str
    url: str
    is_new: bool
    is_served: bool = True


class HubPlace:
    """The repository `repo_id`. Without `token` it is HF_TOKEN of the environment, as the endpoint is HF_ENDPOINT."""

    def __init__(self, repo_id: str, token: SecretStr | None = None) -> None:
        self.repo_id = repo_id
        self._given = token

    @property
    def uri(self) -> str:
        return f"hub:{self.repo_id}"

    def require_token(self) -> None:
        """UserError where there is no token to publish with, or what cannot be one: an HTTP client would quote it in its error."""
        if not re.fullmatch(r"[!-~]+", self._token):
            raise UserError(
                f"Publishing to {self.uri} needs a token: set HF_TOKEN in the environment to one that may write there, or name a Prefect "
                "Secret block that holds one in `publish.token_secret`."
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
                refs = self.api.list_repo_refs(self.repo_id)
            except RepositoryNotFoundError:
                return HubState(None, {})
        heads = [branch.target_commit for branch in refs.branches if branch.name == "main"]
        return HubState(
            heads[0] if heads else None, {tag.name: tag.target_commit for tag in refs.tags if DIGEST.fullmatch(tag.name)}
        )

    def put(self, version: Version, *, pull_request: bool, private: bool) -> HubPut:
        """Bring the release there, checked and tagged; a repository that is not there is made, private if `private`.

        With `pull_request` a pull request is opened, or found open, and checked; it gets its tag when the release is published
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
        """What tells the release at a commit from others: git's id of its manifest; None where there is none."""
        with self._told():
            manifest = self._tree(head).get(MANIFEST_NAME)
            return manifest.blob_id if manifest else None

    def released(self, tag: str) -> HubRelease:
        """What stands at a release's tag."""
        with self._told(), tempfile.TemporaryDirectory() as folder:
            tree = self._tree(tag)
            manifest = None
            if MANIFEST_NAME in tree:
                file = self.api.hf_hub_download(self.repo_id, MANIFEST_NAME, revision=tag, local_dir=folder)
                manifest = Path(file).read_bytes()
            created = self.api.list_repo_commits(self.repo_id, revision=tag)[0].created_at
            sizes = {path: file.size for path, file in tree.items() if path not in HUBS_OWN}
            return HubRelease(manifest, tree[MANIFEST_NAME].blob_id if manifest else None, sizes, created)

    def problems(self, version: Version, revision: str) -> list[str]:
        """How the files at a revision differ from the release, by the sizes and hashes that the hub computed; read, not uploaded."""
        there = self._tree(revision)
        wanted = {entry.path: version.folder / entry.path for entry in version.manifest.files}
        wanted[MANIFEST_NAME] = version.folder / MANIFEST_NAME
        sha256 = {entry.path: entry.sha256 for entry in version.manifest.files}
        sha256[MANIFEST_NAME] = hashlib.sha256(version.manifest_bytes).hexdigest()
        found = [_difference(there[path], file, sha256[path]) for path, file in wanted.items() if path in there]
        problems = [f"{path} is missing" for path in wanted if path not in there] + [text for text in found if text]
        return problems + [f"{path} is extra" for path in sorted(there.keys() - wanted.keys() - set(HUBS_OWN))]

    def _put(self, version: Version, pull_request: bool, private: bool) -> HubPut:
        state = self.state()
        if state.head is None:
            self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            state = self.state()
        if state.head is None:
            raise UserError(f"{self.uri} has no branch `main`: make one there, then publish again.")
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
        self.api.create_tag(self.repo_id, tag=version.digest, revision=commit, exist_ok=True)
        self._require_same(version, version.digest)
        return HubPut(version.digest, self._url(version.digest), is_new=True)

    def _tree(self, revision: str) -> dict[str, RepoFile]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _pull_request(self, version: Version, head: str) -> HubPut:
        found = self.api.get_repo_discussions(self.repo_id, discussion_type="pull_request", discussion_status="open")
        number = next((request.num for request in found if request.title == _title(version)), None)
        is_new = number is None
        if number is None:
            number = self._commit(version, head, create_pr=True).pr_num
        revision = f"refs/pr/{number}"
        self._require_same(version, revision)
        return HubPut(revision, f"{self.api.endpoint}/{self.repo_id}/discussions/{number}", is_new)

    def _commit(self, version: Version, parent: str, *, create_pr: bool) -> Any:
        """One commit upon `parent` after which the tree is the release; large files go ahead by the client's own preupload.

        UserError where the tree holds files that no release brought there: they are somebody's, and not ours to delete.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        paths = [*(entry.path for entry in version.manifest.files), MANIFEST_NAME]
        stale = self._tree(parent).keys() - set(paths) - set(HUBS_OWN)
        manifest = parse_manifest(self.released(parent).manifest)
        brought = {entry.path for entry in manifest.files} | {MANIFEST_NAME} if manifest else set()
        if foreign := sorted(stale - brought):
            named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
            raise UserError(
                f"{self.uri} holds files that no release brought there ({named}), which publishing would delete: remove them there "
                "first, or choose another repository."
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=version.folder / path) for path in paths),
            *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in sorted(stale)),
        ]
        with quiet_client():
            return self.api.create_commit(
                self.repo_id, operations, commit_message=_title(version), parent_commit=parent, create_pr=create_pr
            )

    def _require_same(self, version: Version, revision: str) -> None:
        if problems := self.problems(version, revision):
            raise UserError(
                f"{self.uri} at {revision} holds other files than this release ({'; '.join(problems[:5])}): look at who wrote it, "
                "remove that tag or pull request there and publish again."
            )

    def _url(self, revision: str) -> str:
        return f"{self.api.endpoint}/{self.repo_id}/tree/{revision}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the client raises into one sentence, of which it stays the cause."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.uri}: {reason_of(error)}.") from error


def _title(version: Version) -> str:
    return f"Release {version.name} {version.digest}"


def _difference(there: Any, file: Path, sha256: str) -> str:
    """The hub knows a large file's SHA-256, and of a small one git's blob id, the SHA-1 of a header and the content."""
    if there.size != file.stat().st_size:
        return f"{there.path} has {there.size} bytes instead of {file.stat().st_size}"
    same = there.lfs.sha256 == sha256 if there.lfs else there.blob_id == _blob_id(file)
    return "" if same else f"{there.path} has other content than recorded"


def _blob_id(file: Path) -> str:
    hashed = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
