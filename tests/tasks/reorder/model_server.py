"""A real HTTP server that speaks OpenAI's API, and answers as its test tells it: rightly, slowly, wrongly or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """`answer` makes the text for a prompt. The first requests meet `faults` instead, one each."""

    answer: Callable[[str], str]
    faults: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    may_answer: threading.Event = field(default_factory=threading.Event)


@contextmanager
def model_server(answer: Callable[[str], str], *faults: str) -> Iterator[Served]:
    served = Served(answer, list(faults))
    served.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": "tiny"}]}))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(asked)
            served.keys.append(self.headers["Authorization"])
            served.may_answer.wait()
            fault = served.faults.pop(0) if served.faults else ""
            if fault == "dribble":  # a byte now and then, for longer than anyone waits
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b" ")
                    time.sleep(0.02)
            elif fault == "hang":
                time.sleep(2)
            elif fault == "drop":
                self.close_connection = True
            elif fault.isdecimal():
                self.reply(int(fault), json.dumps({"error": f"no, {self.headers['Authorization']}"}))
            elif fault:
                self.reply(200, fault)
            elif "messages" in asked:
                self.reply(200, json.dumps({"choices": [{"message": {"content": answer(asked["messages"][0]["content"])}}]}))
            else:
                self.reply(200, json.dumps({"choices": [{"text": answer(asked["prompt"])}]}))

        def reply(self, status: int, content: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.may_answer.set()
        server.shutdown()
        server.server_close()
