"""An HTTP server on 127.0.0.1 that hands requests on to another one, or breaks them, for tests."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Faults:
    """`before` and `after` get method, path and the number of the request from 1, and return None, a status to answer instead, or
    0 to cut the connection; `after` comes when the server has carried the request out."""

    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    before: Callable[[str, str, int], int | None] = lambda method, path, number: None
    after: Callable[[str, str, int], int | None] = lambda method, path, number: None


class _Handler(BaseHTTPRequestHandler):
    faults: Faults
    target: str
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raise NotImplementedError("a chunked request")
        with self.lock:
            self.faults.requests.append(f"{self.command} {self.path}")
            number = len(self.faults.requests)
        broken = self.faults.before(self.command, self.path, number)
        if broken is None:
            connection = http.client.HTTPConnection(self.target)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            broken = self.faults.after(self.command, self.path, number)
        if broken == 0:
            self.close_connection = True
            return
        if broken is not None:
            code = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown", 507: "QuotaExceeded"}[broken]
            content = b"<Error><Code>%s</Code><Message>broken on purpose</Message></Error>" % code.encode()
        self.send_response(broken if broken is not None else answer.status)
        for name, value in [] if broken is not None else answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if broken is None and self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def fault_proxy(target: str) -> Iterator[Faults]:
    """Serve in front of the HTTP address `target`; yields what to break, and the address to use instead."""
    faults = Faults()
    handler = type("Handler", (_Handler,), {"faults": faults, "target": urlsplit(target).netloc, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    faults.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
