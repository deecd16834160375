"""A release with a measured advice: its reorder config follows it, and a retrieval loop on a real server does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.serving_advice import ADVICE_FILE_NAME
from tasks.publish.verify import failures, verify_release
from tasks.reorder import ChunkReorder
from tasks.reorder.served import ServedModel
from tasks.reorder.summaries import summarise
from tests import PYTHONPATH, ROOT
from tests.tasks.release_example import finished_run
from tests.tasks.reorder.advice_example import advice
from tests.waiting import HANGS_AFTER_S, wait_until

OTHERS = ("chunks/fine_tuned/15/none", "chunks/fine_tuned/15/reverse_rank", "chunks/fine_tuned/30/none")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    orders = dict.fromkeys(("none", "random", "important_first_last", "reverse_rank"), 0.5)
    run = finished_run(tmp_path_factory.mktemp("run"), tokenizer, orders=orders)

    def make(folder: Path) -> dict[str, str]:
        (folder / ADVICE_FILE_NAME).write_text(advice(worse=OTHERS).model_dump_json())
        return {}

    advised = run.storage.build("advices", stage="advise", params={}, code_version=1, parents={}, make=make)
    return run.publish(advice=advised).path


@pytest.mark.slow
def test_the_reorder_config_follows_the_advice_and_verify_compares_them(release: Path, tmp_path: Path) -> None:
    config = ChunkReorder.load(release).config
    assert (config.strategy, config.chunking.max_tokens, config.validated) == ("reverse_rank", 30, None)
    assert "This order takes the place of important_first_last." in (release / "README.md").read_text()
    assert failures(verify_release(release)) == []

    copy = shutil.copytree(release, tmp_path / release.name)
    other = json.loads((copy / "chunk_reorder.json").read_text())
    other["chunking"]["max_tokens"] = 16
    (copy / "chunk_reorder.json").write_text(json.dumps(other))
    assert f"its passages are not cut as {ADVICE_FILE_NAME} advises" in "; ".join(failures(verify_release(copy)))


@pytest.fixture
def served(release: Path, tmp_path: Path, servers: None) -> Iterator[str]:
    """The release behind `transformers serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", release, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def is_up() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=HANGS_AFTER_S) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    try:
        wait_until(is_up, "the server", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_retrieval_loop_on_a_real_server_follows_the_advice_of_its_release(release: Path, served: str) -> None:
    """A random model writes no words, so what it was asked, and that it answers, is what counts."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "OPENAI_BASE_URL": served, "OPENAI_MODEL": str(release)}
    command = [sys.executable, ROOT / "examples" / "rag_langchain.py", release]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert "advised: chunks It depends on the question." in ran.stdout
    assert "ranks in prompt order: [3, 2, 1]\n" in ran.stdout
    assert ran.stdout.split("[3, 2, 1]\n")[1].strip()

    ask = ServedModel(served, model=str(release), attempts=1)
    text = "The north bridge is 60 m long. " * 30
    summary = summarise(text, ask, count_tokens=lambda part: len(part.split()), window_tokens=80, level_tokens=(8,))
    assert len(summary.result.chunks) > 2
    assert summary.text
