"""A web server that answers like the Hugging Face hub for repositories of models and data sets, on 127.0.0.1, for tests.

Repositories with commits, branches, tags and pull requests; git-LFS batch, upload and verify; everything needs the token.
Small files come in the commit itself, those the hub keeps in LFS (by .gitattributes or size) are uploaded before.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_testtokenthatisnevertobewritten"
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"
_LFS_FROM = 10_000_000


@dataclass
class Commit:
    """A tree: the bytes of each file by its path."""

    files: dict[str, bytes]
    title: str
    created: datetime


@dataclass
class Repository:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, list[str]] = field(default_factory=dict)  # "main", "refs/pr/1", tag names: the commits, newest last
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: list[str] = field(default_factory=list)  # titles

    def add(self, ref: str, files: dict[str, bytes], title: str) -> str:
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=len(self.commits))
        oid = hashlib.sha1(f"{ref}{title}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = Commit(files, title, created)
        self.refs[ref] = [*self.refs.get(ref, self.refs.get("main", [])), oid]
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.tags.get(revision) or (self.refs[revision][-1] if revision in self.refs else None)

    def history(self, oid: str) -> list[str]:
        line = next(line for line in self.refs.values() if oid in line)
        return line[: line.index(oid) + 1][::-1]


@dataclass
class Hub:
    """The server's whole state; `before` may answer or break a request: it gets method and path and returns a status, or 0 to cut
    the connection, or None. `after` does the same once the request is carried out."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS, by SHA-256
    requests: list[str] = field(default_factory=list)
    before: Callable[[str, str], int | None] = lambda method, path: None
    after: Callable[[str, str], int | None] = lambda method, path: None
    damage: Callable[[bytes], bytes] = lambda content: content  # of an LFS upload, on its way to the disk


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        path = unquote(self.path.partition("?")[0])
        body = self._body()
        with self.lock:
            self.hub.requests.append(f"{self.command} {path}")
            broken = self.hub.before(self.command, path)
            if broken is None:
                status, answer, headers = self._route(path, body)
                broken = self.hub.after(self.command, path)
        if broken == 0:
            self.close_connection = True
            self.connection.close()
            return
        if broken is not None:
            status, answer, headers = broken, {"error": "broken on purpose"}, {}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            blocks = []
            while size := int(self.rfile.readline(), 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(blocks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/lfs-store/"):  # a presigned URL: no token
            return self._store(path.removeprefix("/lfs-store/"), body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}, {}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "me", "orgs": [{"name": "org"}]}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
            return self._lfs(match[2], json.loads(body))
        if match := re.fullmatch(r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)/(\w+)/?(.*)", path):
            return self._on_repository(match[1], match[2], match[3], body)
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
            return self._on_repository(match[1], "resolve", f"{match[2]}|{match[3]}", body)
        return 404, {"error": f"unknown path {path}"}, {}

    def _on_repository(self, name: str, verb: str, rest: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if verb == "refs":
            return 200, _refs(repository), {}
        if verb == "discussions":
            found = [_discussion(name, number, title) for number, title in enumerate(repository.pull_requests, start=1)]
            return 200, {"discussions": found, "count": len(found), "start": 0}, {}
        if verb == "preupload":
            return 200, {"files": [_mode(file) for file in json.loads(body)["files"]]}, {}
        revision, _, file = rest.partition("|")  # a tree is asked for as a whole
        oid = repository.resolve(revision)
        if oid is None:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        files = repository.commits[oid].files
        if verb == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            return 200, {"id": name, "sha": oid, "private": repository.private, "tags": [], "siblings": siblings}, {}
        if verb == "tree":
            return 200, [_entry(path, content) for path, content in sorted(files.items())], {}
        if verb == "commits":
            return 200, [_described(one, repository.commits[one]) for one in repository.history(oid)], {}
        if verb == "resolve" and file not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        if verb == "resolve":
            return 200, files[file], {"ETag": f'"{_blob_id(files[file])}"', "X-Repo-Commit": oid}
        if verb == "tag":
            tag = json.loads(body)["tag"]
            if tag in repository.tags:
                return 409, {"error": "Tag already exists"}, {}
            repository.tags[tag] = oid
            return 200, {}, {}
        if verb == "commit":
            return self._commit(name, repository, revision, oid, body)
        return 404, {"error": f"unknown verb {verb}"}, {}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        kind = "datasets/" if wanted.get("type") == "dataset" else ""
        name = f"{kind}{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != "org":
            return 403, {"error": "You may not write there"}, {}
        if name in self.hub.repositories:
            return 409, {"error": "exists", "url": f"{self.hub.endpoint}/{name}"}, {}
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].add("main", {".gitattributes": ATTRIBUTES}, "initial commit")
        return 200, {"url": f"{self.hub.endpoint}/{name}", "name": name}, {}

    def _lfs(self, verb: str, wanted: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if verb == "verify":
            there = len(self.hub.objects.get(wanted["oid"], b"")) == wanted["size"]
            return (200, {}, {}) if there else (404, {"error": "object not found"}, {})
        objects = []
        for item in wanted["objects"]:
            upload = {"href": f"{self.hub.endpoint}/lfs-store/{item['oid']}", "header": {}}
            verify = {"href": f"{self.hub.endpoint}/org/any.git/info/lfs/objects/verify", "header": {}}
            there = item["oid"] in self.hub.objects
            objects.append(item if there else {**item, "actions": {"upload": upload, "verify": verify}})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _store(self, oid: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "BadDigest"}, {}
        self.hub.objects[oid] = self.hub.damage(body)
        return 200, {}, {}

    def _commit(self, name: str, repository: Repository, ref: str, oid: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, oid):
            return 412, {"error": "A commit has happened since. Please refresh and try again."}, {}
        files = dict(repository.commits[oid].files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return 422, {"error": f"LFS object {value['oid']} is missing"}, {}
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        answer: dict[str, Any] = {}
        if "create_pr=1" in self.path:
            repository.pull_requests.append(header["summary"])
            ref = f"refs/pr/{len(repository.pull_requests)}"
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{name}/discussions/{len(repository.pull_requests)}"
        made = repository.add(ref, files, header["summary"])
        return 200, {"success": True, "commitOid": made, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{made}", **answer}, {}

    def log_message(self, *_: Any) -> None:
        pass


def _refs(repository: Repository) -> dict[str, Any]:
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repository.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.refs["main"][-1]}
    return {"branches": [main], "converts": [], "tags": tags, "pullRequests": []}


def _discussion(name: str, number: int, title: str) -> dict[str, Any]:
    return {
        "num": number,
        "title": title,
        "status": "open",
        "isPullRequest": True,
        "author": {"name": "me"},
        "createdAt": "2026-01-01T00:00:00.000Z",
        "repo": {"name": name, "type": "model"},
    }


def _is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith((".safetensors", ".parquet")) or size > _LFS_FROM)


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": file["path"],
        "uploadMode": "lfs" if _is_lfs(file["path"], file["size"]) else "regular",
        "shouldIgnore": False,
    }


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
    if _is_lfs(path, len(content)):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _described(oid: str, commit: Commit) -> dict[str, Any]:
    return {
        "id": oid,
        "authors": [{"user": "me"}],
        "date": f"{commit.created:%Y-%m-%dT%H:%M:%S}.000Z",
        "title": commit.title,
        "message": "",
    }


@contextmanager
def hub_release_server() -> Iterator[Hub]:
    """Serve an empty hub; its `endpoint` is for HF_ENDPOINT. Repositories can be made below `org/` alone; those of data sets are
    kept as `datasets/org/name`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
