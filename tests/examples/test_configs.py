"""The example configurations read what they promise: PDFs in a folder, and documents in S3 with a storage there."""

import os
import random
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from flows.config import load_config
from tests import PYTHONPATH
from tests.examples.test_examples import CONFIGS, ROOT
from tests.s3_server import s3_server
from tests.tasks.ingest.reading.made_files import pdf_lines, pdf_of_pages


def page(seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(f"word{draw.randrange(900)}" for _ in range(12)) + "." for _ in range(30)]


def prepared(name: str, folder: Path, *settings: str) -> list[str]:
    """The lines that `ropeway prepare` ends with."""
    command = [sys.executable, "-m", "flows.cli", "prepare", str(ROOT / "examples" / f"{name}.yaml"), "--no-prefect"]
    command += [part for setting in ("model.target_length=1024", *settings) for part in ("--set", setting)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": PYTHONPATH})
    assert ran.returncode == 0, ran.stderr
    return (ran.stdout + ran.stderr).splitlines()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parameters_are_valid_and_the_file_says_how_to_run_it(name: str) -> None:
    path = ROOT / "examples" / f"{name}.yaml"
    load_config(str(path))
    assert f"ropeway run examples/{name}.yaml" in path.read_text()


@pytest.mark.slow
def test_a_folder_of_pdfs_becomes_shards(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / "my-pdfs" / "more").mkdir(parents=True, exist_ok=True)
        pages = [pdf_lines(page(9 * number + i)) for i in range(3)]
        (tmp_path / "my-pdfs" / ("more" if number % 2 else ".") / f"{number}.pdf").write_bytes(pdf_of_pages(pages))
    (tmp_path / "my-pdfs" / "notes.txt").write_text("not asked for")
    lines = prepared("own_pdfs", tmp_path, "corpus.heldout_fraction=0.3")
    assert any("10 documents" in line for line in lines)
    assert list((tmp_path / "ropeway-storage" / "shards").glob("*/manifest.json"))


@pytest.mark.slow
def test_documents_in_s3_become_shards_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    with s3_server() as bucket:
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        for number in range(10):
            text = "\n".join(line for i in range(3) for line in page(9 * number + i))
            system.pipe(f"{bucket}/books/{number}/text.txt", text.encode())
        sources = f'corpus.sources=[{{"uri": "{bucket}/books", "work_by": "top_level"}}]'
        lines = prepared("s3_corpus", tmp_path, f"storage={bucket}/ropeway", sources, "corpus.heldout_fraction=0.3")
        assert any("10 documents" in line for line in lines)
        system.invalidate_cache()
        assert system.glob(f"{bucket}/ropeway/shards/*/manifest.json")
