"""What remains of held-out text in training is measured on the chunks that are packed, and named."""

from __future__ import annotations

import io
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from data_schemas.ledger import ledger_of
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import SEEN_HELDOUT, SEEN_HELDOUT_FILE
from ray_jobs.prepare.ray_data import workers_for
from tasks.ingest import documents_stage
from tasks.ingest.split import split_of
from tasks.pack import shards_stage
from tasks.pack.inspection.prepared import show_prepared
from tasks.prefect_tasks.pages.corpus import corpus_page
from tasks.prefect_tasks.pages.packing import packing_page

WORDS = [f"{a}{b}{c}" for a in "bdfglm" for b in "aeiou" for c in ("na", "ro", "ti", "sel")]


def prose(seed: int, num_words: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(num_words))


def shards_of(
    tmp_path: Path, texts: dict[str, str], heldout: set[str], more: dict[str, str] | None = None, **options: Any
) -> Artifact:
    """Shards of the sources `corpus` and, with `more`, `more`, where the works `heldout` are held out."""
    sources = {"corpus": texts} | ({"more": more} if more else {})
    for source, of_source in sources.items():
        (tmp_path / source).mkdir(exist_ok=True)
        for name, text in of_source.items():
            (tmp_path / source / f"{name}.txt").write_text(text)
    works = [name for of_source in sources.values() for name in of_source]
    seed = next(s for s in range(100_000) if {work for work in works if split_of(work, 0.3, s) == "heldout"} == heldout)
    corpus = {
        "sources": [str(tmp_path / source) for source in sources],
        "heldout_fraction": 0.3,
        "split_seed": seed,
        "decontamination": {"enabled": False},
    }
    params = PipelineParams.model_validate(
        {
            "run_name": "x",
            "corpus": corpus,
            "model": {"base": "demo", "target_length": 512},
            "storage": str(tmp_path / "storage"),
            **options,
        }
    )
    storage, workers = Storage(params.storage), partial(workers_for, params)
    documents = documents_stage.run(params, storage, workers, lambda _: None)
    return shards_stage.run(params, storage, documents, workers, lambda _: None)


def seen(shards: Artifact) -> dict[str, dict[str, Any]]:
    table = pq.read_table(shards.path / SEEN_HELDOUT_FILE)
    assert table.schema.equals(SEEN_HELDOUT)
    return {Path(row["source_uri"]).stem: row for row in table.to_pylist()}


@pytest.fixture
def texts() -> dict[str, str]:
    held = prose(1, 400).split()
    return {
        "held": " ".join(held),
        "apart": prose(2, 300),
        "short": "too short",
        "long": f"{prose(3, 900)} {' '.join(held[:150])} {prose(4, 900)}",
        "small": f"{' '.join(held[200:300])} {prose(5, 20)}",
    }


def test_the_share_of_each_heldout_document_is_that_of_its_ngrams(tmp_path: Path, texts: dict[str, str]) -> None:
    shards = shards_of(tmp_path, texts, {"held", "apart", "short"})
    found = seen(shards)
    assert {name: (row["num_ngrams"], row["num_seen"]) for name, row in found.items()} == {
        "held": (388, 138 + 88),
        "apart": (288, 0),
        "short": (1, 0),
    }
    assert found["held"]["share"] == pytest.approx(226 / 388)
    summary = shards.manifest.summary["heldout_seen"]
    assert (summary["num_documents"], summary["num_seen"]) == (3, 1)
    assert summary["share"] == pytest.approx(226 / (388 + 288 + 1))
    [worst] = summary["worst"]
    assert worst == {name: found["held"][name] for name in ("doc_id", "source_uri", "record", "share")}
    assert not (shards.path / ".seen").exists()


def test_only_packed_chunks_count(tmp_path: Path, texts: dict[str, str]) -> None:
    """Nothing of the second source is trained on, so what its document shows of the held-out one is not seen."""
    more = {"small": texts.pop("small")}
    heldout = {"held", "apart", "short"}
    assert seen(shards_of(tmp_path, texts, heldout, more))["held"]["num_seen"] == 138 + 88
    unused = {"budgets": [{"source": "more", "repeats": 0}]}
    assert seen(shards_of(tmp_path, texts, heldout, more, packing=unused))["held"]["num_seen"] == 138


def test_the_terminal_and_the_pages_show_the_ledger_and_what_was_seen(tmp_path: Path, texts: dict[str, str]) -> None:
    shards = shards_of(tmp_path, texts, {"held", "apart", "short"})
    storage = Storage(str(tmp_path / "storage"))
    documents = storage.find("documents", shards.manifest.parents["documents"])
    assert documents is not None
    console = Console(width=200, record=True, file=io.StringIO())
    show_prepared(documents.manifest, shards.manifest, console)
    shown = console.export_text()
    ledger = ledger_of(shards.manifest.summary)
    assert ledger is not None
    num_bytes = sum(len(texts[name]) for name in ("long", "small"))
    assert re.search(rf"= remaining for training *│ *2 │ *{num_bytes:,} │", shown)
    assert re.search(rf"= in rows *│.*│ *{ledger.total('rows').tokens:,} │", shown)
    assert re.search(r"\d+\.\d\d% of the held-out text is in training rows; 58\.2% of .*held\.txt", shown)
    params = PipelineParams.model_validate(
        {"run_name": "x", "corpus": {"sources": ["corpus"]}, "model": {"base": "demo", "target_length": 512}}
    )
    pages = {"corpus": corpus_page(documents, params.corpus).text, "packing": packing_page(shards, params).text}
    assert "| all | = remaining for training | 2 |" in pages["corpus"]
    assert "| all | = in rows |" in pages["packing"]
    assert re.search(r"\| .*held\.txt \| 0 \| 58\.2% \|", pages["packing"])
    assert "### Passages in two documents" in pages["corpus"]
