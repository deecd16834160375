"""The data stage as a whole, from files to rows, as the job runs it."""

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig, PreTrainedTokenizerFast

from data_schemas.data_card import data_card, hub_page
from data_schemas.documents import document_files
from data_schemas.errors import UserError
from data_schemas.ledger import read_ledger
from data_schemas.params import PipelineParams, RayParams
from data_schemas.remote import Remote
from data_schemas.storage import Artifact, Storage
from data_schemas.tables import CHUNKS
from ray_jobs.cluster import connected
from ray_jobs.prepare.__main__ import prepare
from ray_jobs.prepare.ray_data import ray_workers, workers_for
from tasks.ingest import documents_stage as ingest
from tasks.pack import shards_stage as pack
from tasks.pack.inspection.figures import inspect_shards
from tasks.pack.reading import open_rows
from tasks.work import InProcess
from tests import ROOT
from tests.heard import texts_into
from tests.s3_server import s3_server
from tests.tasks.test_work import Square
from tests.waiting import EndedTooSoon, interrupted

SENTENCE = "The rope holds, and traveller number {} looks back. "


@pytest.fixture(scope="module")
def ray_cluster(servers: None) -> Iterator[None]:
    """One private cluster for the tests that run on Ray Data in this process."""
    with connected(RayParams(num_workers=2)):
        yield


@pytest.fixture
def base(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "base"
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(12):
        paragraphs = ["".join(SENTENCE.format(f"{number}-{i}-{j}") for j in range(4)) for i in range(1 + 3 * (number % 4))]
        (folder / f"{number}.md").write_text(f"# Journey {number}\n\n" + "\n\n".join(paragraphs) + "\n")
    return folder


def parameters(tmp_path: Path, base: Path, corpus: Path, **changes: Any) -> PipelineParams:
    given: dict[str, Any] = {
        "run_name": "test",
        "storage": str(tmp_path / "storage"),
        "corpus": {"sources": [str(corpus)], "heldout_fraction": 0.3},
        "model": {"base": str(base), "target_length": 256},
    }
    return PipelineParams.model_validate(given | changes)


def made(params: PipelineParams) -> tuple[Artifact, Artifact]:
    storage, workers_here = Storage(params.storage), partial(workers_for, params)
    documents = ingest.run(params, storage, workers_here, lambda _: None)
    return documents, pack.run(params, storage, documents, workers_here, lambda _: None)


def test_documents_become_rows_with_their_ends_marked(
    tmp_path: Path, base: Path, corpus: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    documents, shards = made(parameters(tmp_path, base, corpus))
    table = {d["doc_id"]: d for d in pq.read_table(document_files(documents.path)).to_pylist()}
    chunks = pq.read_table(sorted(shards.path.glob("chunks-*.parquet")))
    assert chunks.schema.equals(CHUNKS)
    by_id = {c["chunk_id"]: c for c in chunks.to_pylist()}
    last_index = {c["doc_id"]: c["index"] for c in by_id.values()}
    assert max(last_index.values()) > 0
    for chunk in by_id.values():
        assert chunk["previous_chunk_id"] == (f"{chunk['doc_id']}:{chunk['index'] - 1}" if chunk["index"] else None)
        is_last = chunk["index"] == last_index[chunk["doc_id"]]
        assert chunk["next_chunk_id"] == (None if is_last else f"{chunk['doc_id']}:{chunk['index'] + 1}")
    seen: set[str] = set()
    for split, folder in (("train", shards.path), ("heldout", shards.path / "heldout")):
        rows = open_rows(folder)
        for i in range(len(rows)):
            row = rows.row(i)
            assert row["seq_lengths"].sum() == len(row["input_ids"]) <= 256
            start = 0
            for chunk_id, length in zip(rows.chunk_ids(i), row["seq_lengths"].tolist(), strict=True):
                ids = row["input_ids"][start : start + length].tolist()
                start += length
                chunk = by_id[chunk_id]
                document = table[chunk["doc_id"]]
                assert document["split"] == chunk["split"] == split
                is_last = chunk["index"] == last_index[chunk["doc_id"]]
                assert (ids[-1] == tokenizer.eos_token_id) == is_last
                assert tokenizer.bos_token_id not in ids  # this tokenizer adds none by itself
                text = document["text"][chunk["char_start"] : chunk["char_end"]]
                assert tokenizer.decode(ids[: len(ids) - is_last]) == text
                assert chunk["heading_path"] == [document["text"].splitlines()[0][2:]]
                seen.add(chunk_id)
    assert seen == set(by_id)
    summary = shards.manifest.summary
    assert summary["num_rows"] == len(open_rows(shards.path))
    assert summary["num_chunks"] == len(by_id)
    assert sum(b["num_used_tokens"] for b in summary["buckets"]) == summary["num_tokens"]


def test_the_ledger_and_the_card_agree_with_the_rows(tmp_path: Path, base: Path, corpus: Path) -> None:
    (corpus / "broken.md").write_bytes(b"broken \x00 text")
    shutil.copy(corpus / "7.md", corpus / "copy.md")
    budgets = [{"bucket": 128, "repeats": 2}, {"bucket": 256, "max_tokens": 3000}]
    documents, shards = made(parameters(tmp_path, base, corpus, packing={"budgets": budgets}))
    ledger, summary = read_ledger(shards.path), shards.manifest.summary
    ledger.check()
    assert ledger.to_json() == summary["ledger"]
    rows = open_rows(shards.path)
    packed = sum(len(rows.row(i)["input_ids"]) for i in range(len(rows)))
    assert ledger.total("read").documents == 14
    assert ledger.total("quarantined").documents == ledger.total("duplicate").documents == 1
    assert ledger.total("held_out").documents == documents.manifest.summary["num_heldout"]
    assert (ledger.total("packed").tokens, ledger.total("rows").tokens) == (packed, 256 * len(rows))
    assert ledger.total("padding").tokens == 256 * len(rows) - packed
    assert (ledger.total("repeated").tokens or 0) > 0
    assert (ledger.total("dropped").tokens or 0) > 0
    card = data_card(256, summary)
    assert card is not None
    assert card == inspect_shards(shards.path).card
    assert sum(group.documents for group in card.groups) == ledger.total("remaining").documents
    assert sum(group.tokens for group in card.groups) == ledger.total("remaining").tokens
    assert all(sample.text.startswith("# Journey ") for sample in card.samples)
    assert (shards.path / "README.md").read_text() == hub_page(card)
    # As from the hub: a folder on this machine with a state.json is left to load_from_disk.
    shutil.copytree(shards.path, tmp_path / "pushed", ignore=shutil.ignore_patterns("state.json"))
    loaded = datasets.load_dataset(str(tmp_path / "pushed"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == {"train": len(rows), "heldout": summary["num_heldout_rows"]}
    assert loaded["train"][0]["input_ids"] == rows.row(0)["input_ids"].tolist()


def test_rows_may_be_shorter_than_the_target(tmp_path: Path, base: Path, corpus: Path) -> None:
    _, shards = made(parameters(tmp_path, base, corpus, packing={"row_length": 96}))
    rows = open_rows(shards.path)
    lengths = [len(rows.row(i)["input_ids"]) for i in range(len(rows))]
    assert max(lengths) <= 96
    assert sum(lengths) > 0.9 * 96 * len(lengths)
    assert shards.manifest.params["target_length"] == 96
    _, same = made(parameters(tmp_path, base, corpus, packing={"row_length": 256}))
    _, plain = made(parameters(tmp_path, base, corpus))
    assert same.digest == plain.digest
    with pytest.raises(ValueError, match=r"packing.row_length is 512, above model.target_length 256"):
        parameters(tmp_path, base, corpus, packing={"row_length": 512})
    with pytest.raises(ValueError, match=r"chunking.max_tokens is 128, above packing.row_length 96"):
        parameters(tmp_path, base, corpus, packing={"row_length": 96}, chunking={"max_tokens": 128})


def test_bos_is_added_where_the_tokenizer_adds_it(
    tmp_path: Path, base: Path, corpus: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    from tokenizers.processors import TemplateProcessing

    with_bos = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), bos_token="<s>", eos_token="</s>")
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    with_bos.save_pretrained(base)
    _, shards = made(parameters(tmp_path, base, corpus))
    assert shards.manifest.summary["bos_token_id"] == 0
    assert shards.manifest.summary["chunk_tokens"] == 254
    rows = open_rows(shards.path)
    for i in range(len(rows)):
        row, start = rows.row(i), 0
        for length in row["seq_lengths"].tolist():  # also of pieces that start in the middle of a document
            assert row["input_ids"][start : start + length].tolist().count(0) == 1
            assert row["input_ids"][start] == 0
            start += length


def test_two_runs_write_the_same_bytes_and_the_second_in_one_storage_makes_nothing(
    tmp_path: Path, base: Path, corpus: Path
) -> None:
    params = parameters(tmp_path, base, corpus)
    first = made(params)
    assert [a.reused for a in made(params)] == [True, True]
    other = made(params.model_copy(update={"storage": str(tmp_path / "other")}))
    assert [a.manifest.model_dump() for a in first] == [a.manifest.model_dump() for a in other]


def test_a_changed_file_or_setting_makes_new_artifacts(tmp_path: Path, base: Path, corpus: Path) -> None:
    documents, shards = made(parameters(tmp_path, base, corpus))
    other_packing = made(parameters(tmp_path, base, corpus, packing={"seed": 1}))
    assert (other_packing[0].digest, other_packing[1].digest) == (documents.digest, other_packing[1].digest)
    assert other_packing[1].digest != shards.digest
    (corpus / "1.md").write_text("changed, and shorter")
    changed = made(parameters(tmp_path, base, corpus))
    assert changed[0].digest != documents.digest
    assert changed[1].digest != shards.digest


def test_a_corpus_too_short_for_the_target_is_one_sentence(tmp_path: Path, base: Path, corpus: Path) -> None:
    params = parameters(tmp_path, base, corpus, model={"base": str(base), "target_length": 4096})
    with pytest.raises(UserError, match=r"too short for the target: the longest training document has \d+ tokens") as raised:
        made(params)
    assert "4096" in str(raised.value)
    assert not (tmp_path / "storage" / "shards").exists()
    assert not list((tmp_path / "storage" / ".staging").iterdir())


def test_settings_that_leave_nothing_are_one_sentence(tmp_path: Path, base: Path, corpus: Path) -> None:
    with pytest.raises(UserError, match="No training row is left"):
        made(parameters(tmp_path, base, corpus, packing={"bucket_repeats": {128: 0, 256: 0}}))


def test_a_corpus_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, base: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ingest.select

    def select_then_change(*arguments: Any) -> Any:
        (corpus / "1.md").write_text("other")
        return whole(*arguments)

    monkeypatch.setattr(ingest, "select", select_then_change)
    with pytest.raises(UserError, match="changed while it was being read"):
        made(parameters(tmp_path, base, corpus))


def many_units(tmp_path: Path, base: Path, **changes: Any) -> PipelineParams:
    """A corpus that is read in several units and packed into several shards, with retrieval documents."""
    folder = tmp_path / "many"
    folder.mkdir(exist_ok=True)
    words = ["rope", "bridge", "valley", "cliff", "coin", "river", "stone", "wind", "path", "lantern", "market", "rain"]
    for number in range(16):
        draw = random.Random(number)
        text = "\n\n".join(" ".join(draw.choices(words, k=30)).capitalize() + "." for _ in range(300))
        (folder / f"{number}.txt").write_text(f"# Journey {number}\n\n{text}\n")
    packing = {"shard_megabytes": 0.3}
    retrieval = {"share": 0.1, "families": ["key_value", "fill_in"]}
    return parameters(tmp_path, base, folder, packing=packing, retrieval=retrieval, **changes)


def contents(*artifacts: Artifact) -> dict[str, bytes]:
    return {
        f"{artifact.manifest.stage}/{entry.path}": (artifact.path / entry.path).read_bytes()
        for artifact in artifacts
        for entry in artifact.manifest.files
    }


def test_processes_and_ray_data_write_the_same_bytes_as_one_process(
    tmp_path: Path, base: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 200_000)
    params = many_units(tmp_path, base)
    alone = contents(*made(params.model_copy(update={"ray": params.ray.model_copy(update={"data_workers": 1})})))
    assert len([name for name in alone if name.startswith("ingest/documents-")]) > 3
    assert len([name for name in alone if name.startswith("prepare/data-")]) > 3
    for kind, num_workers in (("processes", 2), ("ray", 2)):
        ray = params.ray.model_copy(update={"data_workers": num_workers})
        other = params.model_copy(update={"storage": str(tmp_path / f"{kind}-{num_workers}"), "ray": ray})
        if kind == "processes":
            assert contents(*made(other)) == alone
        else:
            shards = prepare(other, Storage(other.storage), lambda _: None)
            documents = Storage(other.storage).find("documents", shards.manifest.parents["documents"])
            assert documents is not None
            assert contents(documents, shards) == alone


DYING = """
import os, signal, sys
from data_schemas.params import PipelineParams
import tests.ray_jobs.prepare.test_prepare as t, tasks.ingest.corpus_units

params, die_at, seen, this = PipelineParams.model_validate_json(sys.argv[1]), int(sys.argv[2]), 0, os.getpid()
CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}

def hook(event, arguments):
    global seen
    if event in CHANGES and os.getpid() == this and params.storage in str(arguments[0]):
        seen += 1
        if seen == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

tasks.ingest.corpus_units.MIN_UNIT_BYTES = 200_000
sys.addaudithook(hook)
t.made(params)
print(seen)
"""


def prepared_by_a_process(params: PipelineParams, die_at: int = 0) -> tuple[int, int]:
    """(exit status, number of file operations in the storage) of a run that is killed at that operation; 0: never."""
    command = [sys.executable, "-c", DYING, params.model_dump_json(), str(die_at)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode, int(done.stdout or 0)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.slow
def test_sigkill_at_any_point_and_reruns_give_the_same_bytes(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 200_000)
    params = many_units(tmp_path, base, ray={"data_workers": num_workers})
    undisturbed = params.model_copy(update={"storage": str(tmp_path / "clean")})
    status, num_operations = prepared_by_a_process(undisturbed)
    assert status == 0
    clean = contents(*made(undisturbed))
    draw = random.Random()

    def attempt(amount: int) -> None:
        """Two kills, so early that neither run ends before."""
        shutil.rmtree(tmp_path / "storage", ignore_errors=True)
        for _ in range(2):
            if prepared_by_a_process(params, die_at=draw.randint(1, num_operations // (2 * amount)))[0] == 0:
                raise EndedTooSoon("the run")

    interrupted(attempt, (1, 2, 4, 8))
    assert contents(*made(params)) == clean
    assert not list((tmp_path / "storage" / ".staging").iterdir())
    assert not list((tmp_path / "storage" / ".parts").iterdir())


def test_a_unit_that_kills_its_ray_worker_ends_in_a_sentence(ray_cluster: None, tmp_path: Path) -> None:
    with ray_workers(RayParams(data_workers=2)) as workers, pytest.raises(UserError, match=r"killed.*data_workers"):
        list(workers.map(Square(str(tmp_path / "log"), fatal=3), range(6)))
    assert (tmp_path / "log").read_text().split().count("3") == 3  # it was tried again, twice


def test_another_packing_goes_on_from_the_same_chunks(tmp_path: Path, base: Path, corpus: Path) -> None:
    refused = parameters(tmp_path, base, corpus, packing={"bucket_token_budgets": {128: 0, 256: 0}})
    with pytest.raises(UserError, match="No training row is left"):
        made(refused)
    chunked = sorted((tmp_path / "storage" / ".parts").glob("*/chunked-*.json"))
    assert chunked
    written = [path.stat().st_mtime_ns for path in chunked]
    lines: list[str] = []
    params = parameters(tmp_path, base, corpus)
    storage, workers_here = Storage(params.storage), partial(workers_for, params)
    documents = ingest.run(params, storage, workers_here, texts_into(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "drop_parts", lambda self, key, **_: None)
        pack.run(params, storage, documents, workers_here, texts_into(lines))
    assert [path.stat().st_mtime_ns for path in chunked] == written


@pytest.mark.usefixtures("servers")
def test_the_stage_works_on_s3(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = many_units(tmp_path, base)
    local = contents(*made(params))
    with s3_server() as bucket:
        monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
        remote = params.model_copy(update={"storage": f"{bucket}/store"})
        first = made(remote)
        assert [artifact.location.split("/")[-2] for artifact in first] == ["documents", "shards"]
        monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "another-machine"))
        again = made(remote)
        assert [artifact.reused for artifact in again] == [True, True]
        assert contents(*again) == local
        for artifact in again:
            artifact.check()


@pytest.mark.usefixtures("servers")
def test_workers_on_other_machines_exchange_parts_through_s3(
    tmp_path: Path, base: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two corpora in one process: what a worker keeps of the first must not be taken for the second's."""
    monkeypatch.setattr("tasks.ingest.corpus_units.MIN_UNIT_BYTES", 200_000)
    monkeypatch.setattr(InProcess, "on_other_machines", True)
    for number, params in enumerate((many_units(tmp_path, base), parameters(tmp_path, base, corpus))):
        local = contents(*made(params.model_copy(update={"storage": str(tmp_path / f"local-{number}")})))
        with s3_server() as bucket:
            monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / f"cache-{number}"))
            remote = params.model_copy(update={"storage": f"{bucket}/store-{number}"})
            assert contents(*made(remote)) == local
            assert not Remote(remote.storage).sizes(".parts")


def test_the_job_shows_progress_and_a_table(
    tmp_path: Path, base: Path, corpus: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    params = parameters(tmp_path, base, corpus)
    lines: list[str] = []
    shards = prepare(params, Storage(params.storage), texts_into(lines))
    assert any("documents" in line for line in lines)
    shown = capsys.readouterr().err
    assert "held out" in shown
    assert "packed tokens" in shown
    assert f"{shards.manifest.summary['num_rows']} rows" in shown


@pytest.mark.usefixtures("servers")
def test_the_commands_status_and_messages(tmp_path: Path, base: Path, corpus: Path) -> None:
    def command(params: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "ray_jobs.prepare", "--params", json.dumps(params)]
        return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False)

    good = parameters(tmp_path, base, corpus).model_dump(mode="json")
    done = command(good)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "manifest.json").is_file()
    missing = command(good | {"corpus": good["corpus"] | {"sources": [str(tmp_path / "nowhere")]}})
    assert missing.returncode == 2
    assert missing.stdout == ""
    assert "does not exist" in missing.stderr
    assert "Traceback" not in missing.stderr
