"""The retrieval loops, each with its real framework, against a server that speaks the API of vLLM and repeats what it was asked."""

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_schemas.params import PipelineParams
from data_schemas.serving_advice import ADVICE_FILE_NAME, ServingAdvice
from tasks.publish.reorder_config import make_config
from tasks.reorder.config import to_json
from tests import PYTHONPATH
from tests.examples.test_examples import RAG, ROOT
from tests.tasks.reorder.advice_example import advice
from tests.tasks.reorder.model_server import model_server

MODEL = "path/to/release"


class Server(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.answer({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        assert self.path == "/v1/completions"
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        logprobs = {"tokens": [" It is 81", " m long."], "token_logprobs": [-0.9, -0.3]}
        self.answer({"choices": [{"index": 0, "text": " It is 81 m long.", "finish_reason": "stop", "logprobs": logprobs}]})

    def answer(self, content: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The requests for completions that the server got."""
    Server.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    yield Server.asked
    server.shutdown()
    server.server_close()


def run(name: str, release: Path) -> list[str]:
    environment = os.environ | {"HAYSTACK_TELEMETRY_ENABLED": "False", "PYTHONPATH": PYTHONPATH}
    script = ROOT / "examples" / f"{name}.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(release)], capture_output=True, text=True, env=environment, cwd=release
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def write_release(folder: Path, given: ServingAdvice | None) -> None:
    params = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
    )
    (folder / "chunk_reorder.json").write_text(to_json(make_config(params, [], None, given)))
    if given is not None:
        (folder / ADVICE_FILE_NAME).write_text(given.model_dump_json())


def passages_of(request: dict[str, Any]) -> list[str]:
    *passages, question = request["prompt"].split("\n\n")
    assert question == "Question: How long is the iron bridge?\nAnswer:"
    return passages


@pytest.mark.usefixtures("servers")
def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    served_model = importlib.import_module("served_model")
    monkeypatch.setattr(served_model, "TIMEOUT_S", 0.2)
    with model_server(str.upper, "hang") as slow:
        monkeypatch.setattr(served_model, "SERVER", slow.url)
        with pytest.raises(TimeoutError):
            served_model.ask("completions", {"prompt": "a"})


@pytest.mark.parametrize("name", RAG)
@pytest.mark.slow
def test_the_passages_reach_the_server_in_the_order_of_the_release(
    name: str, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_release(tmp_path, None)
    first, *rest = run(name, tmp_path)[-3:]
    assert first.startswith("advised: chunks The release has no serving_advice.json")
    assert rest == ["ranks in prompt order: [1, 3, 5, 4, 2]", " It is 81 m long."]
    (request,) = served
    assert request["model"] == MODEL
    passages = passages_of(request)
    assert passages[0] == "The iron bridge is 81 m long."
    assert len(passages) == 5
    assert all(re.fullmatch(r"The \w+ bridge is \d+ m long\.", passage) for passage in passages)


@pytest.mark.slow
def test_a_loop_follows_the_advice_of_its_release(served: list[dict[str, Any]], tmp_path: Path) -> None:
    """k, order and budget of the advice; the first answer is unlikely (-0.6 nats), so a route asks about everything."""
    write_release(tmp_path, advice("route/fine_tuned"))
    assert run("rag_haystack", tmp_path)[-3:] == [
        "advised: route It depends on the question.",
        "ranks in prompt order: [3, 2, 1]",
        " It is 81 m long.",
    ]
    first, second = map(passages_of, served)
    assert (len(first), first[-1]) == (3, "The iron bridge is 81 m long.")
    assert len(second) == 6
    assert [request["max_tokens"] for request in served] == [7, 7]
