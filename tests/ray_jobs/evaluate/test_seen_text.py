"""Held-out documents of which too much was in training are not evaluated, and the report says how much the others were."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.report_seen import SeenDocument, SeenText
from data_schemas.storage import Artifact
from data_schemas.tables import SEEN_HELDOUT, SEEN_HELDOUT_FILE
from ray_jobs.evaluate import evaluation_stage as stage
from ray_jobs.evaluate.seen_text import NOT_MEASURED, seen_in, seen_in_training
from tasks.evaluate.sample_set import Samples
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run, write_chunks

SHARES = {"d0": 0.0, "d1": 0.5, "d2": 0.51, "d3": 0.0, "d4": 1.0}


@pytest.fixture
def tiny_run(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    return make_tiny_run(tmp_path, tokenizer)


def shards_with(run: TinyRun, shares: dict[str, float]) -> Artifact:
    def make(folder: Path) -> dict[str, Any]:
        write_chunks(folder)
        rows = [
            {"doc_id": d, "source": "x", "source_uri": f"/books/{d}.txt", "record": 0, "num_ngrams": 100}
            | {"num_seen": round(100 * share), "share": share}
            for d, share in shares.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=SEEN_HELDOUT), folder / SEEN_HELDOUT_FILE)
        return {}

    return run.storage.build("shards", stage="shards", params={"seen": shares}, code_version=1, parents={}, make=make)


def trained_on(run: TinyRun, shards: Artifact) -> TinyRun:
    """The same run with a checkpoint that was trained on `shards`."""

    def make(folder: Path) -> dict[str, Any]:
        shutil.copytree(run.checkpoint.path, folder, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
        return {}

    parents = {"shards": shards.digest}
    checkpoint = run.storage.build("checkpoints", stage="checkpoints", params={}, code_version=1, parents=parents, make=make)
    return TinyRun(run.params, run.storage, run.documents, checkpoint)


@pytest.mark.slow
def test_documents_above_the_limit_are_left_out_and_the_worst_are_named(tiny_run: TinyRun) -> None:
    run = trained_on(tiny_run, shards_with(tiny_run, SHARES))
    evaluation = run.evaluate(arms=("fine_tuned",), lengths=(64, 128), tasks=(), reorder_samples=0, longppl_evaluator=None)
    assert {row["doc_id"] for row in Samples.read(evaluation.path).perplexity.to_pylist()} == {"d1", "d3"}
    report = stage.load_report(evaluation)
    assert report.settings.seen_text == SeenText(
        num_documents=5,
        num_seen=3,
        share=201 / 500,
        num_left_out=2,
        worst=tuple(SeenDocument(doc_id=d, name=f"{d}.txt", share=SHARES[d]) for d in ("d4", "d2", "d1")),
    )
    page = (evaluation.path / "report.md").read_text()
    assert "40.20% of the word 13-grams of all 5 held-out documents occur in the training rows; 3 documents have any." in page
    assert "The most: `d4.txt` (d4) 100.0%, `d2.txt` (d2) 51.0%, `d1.txt` (d1) 50.0%. 2 above 50% are not evaluated." in page
    assert any("2 held-out documents are left out" in line for line in run.told)


def test_too_few_that_are_left_is_refused_before_any_training(tiny_run: TinyRun) -> None:
    shards = shards_with(tiny_run, dict.fromkeys(SHARES, 0.9))
    with pytest.raises(UserError, match=r"evaluation needs 2.* 5 held-out document\(s\) are left out, because more than"):
        stage.refuse_unmeasurable(tiny_run.params, tiny_run.storage, tiny_run.documents, shards)
    stage.refuse_unmeasurable(tiny_run.changed(max_seen_share=1.0), tiny_run.storage, tiny_run.documents, shards)


def test_what_was_not_measured_leaves_nothing_out(tiny_run: TinyRun) -> None:
    assert seen_in_training(None, tiny_run.storage, 0.5) == NOT_MEASURED
    assert seen_in_training(tiny_run.checkpoint, tiny_run.storage, 0.5) == NOT_MEASURED  # shards of an older version
    assert seen_in(shards_with(tiny_run, SHARES), 1.0).left_out == frozenset()
    assert seen_in(shards_with(tiny_run, {}), 0.5).section == SeenText(
        num_documents=0, num_seen=0, share=0.0, num_left_out=0, worst=()
    )
