"""A small web server that answers like the Hugging Face hub for one public data set, on 127.0.0.1, for tests."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40
DATASET = "me/words"


class _Hub(BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        kind, _, rest = path.removeprefix("/api").removeprefix(f"/datasets/{DATASET}").lstrip("/").partition("/")
        if not path.removeprefix("/api").startswith(f"/datasets/{DATASET}"):
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif kind == "tree":
            self._json(self._tree(rest.partition("/")[2]))
        elif kind == "resolve":
            self._file(rest.partition("/")[2])
        else:
            sizes = {name: {"size": len(data)} if "blobs" in query else {} for name, data in self.files.items()}
            siblings = [{"rfilename": name, **size} for name, size in sizes.items()]
            self._json({"id": DATASET, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    do_HEAD = do_GET

    def _tree(self, folder: str) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        below = {name: data for name, data in self.files.items() if name.startswith(prefix)}
        folders = sorted({name.removeprefix(prefix).split("/")[0] for name in below if "/" in name.removeprefix(prefix)})
        files = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in below.items()
            if "/" not in name.removeprefix(prefix)
        ]
        return files + [{"type": "directory", "path": prefix + name, "oid": "0" * 40} for name in folders]

    def _file(self, name: str) -> None:
        if name not in self.files:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = self.files[name]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or len(data)), len(data) - 1)
            self._answer(206, data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"})
        else:
            self._answer(200, data, headers)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub_server(files: dict[str, bytes]) -> Iterator[str]:
    """Serve the data set `me/words` of these files; yields the endpoint for HF_ENDPOINT."""
    handler = type("Hub", (_Hub,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
