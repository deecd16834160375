"""Inspecting shards: an artifact written with the stage's own writers, whose content is known."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from data_schemas.storage import Artifact, Storage, read_manifest
from data_schemas.tables import CHUNKS
from tasks.pack.inspection.figures import Inspection, inspect_shards, shipped_tokenizer
from tasks.pack.inspection.plot import plot
from tasks.pack.inspection.tables import show
from tasks.pack.sequences import SequenceReader, SequenceWriter
from tasks.pack.shards import shard_name, write_dataset_files, write_shard

ROW_LENGTH = 64
TEXTS = [  # (source, split, text): a token is a character or more
    ("books", "train", "Rope bridges hang between cliffs."),
    ("books", "train", "[bold]A traveller[/bold]\npays one coin \u0000\u202e"),
    ("web", "train", "one"),
    ("web", "heldout", "two"),
]
ROWS = {"train": [[0, 2], [1], [0]], "heldout": [[0]]}  # the first book twice
SUMMARY = {
    "buckets": [
        {"source": "books", "upper_bound": 64, "num_tokens": 200, "num_used_tokens": 300},
        {"source": "web", "upper_bound": 64, "num_tokens": 100, "num_used_tokens": 100},
    ],
    "sources": [{"name": "books", "wanted": 0.75, "reached": 0.75}, {"name": "web", "wanted": 0.25, "reached": 0.25}],
}
LEFT_OUT = {
    "num_documents": 4,
    "num_duplicates": 1_234,
    "num_near_duplicates": 56,
    "num_contaminated": 7,
    "skipped": {"short": 8, "language": 1},
    "quarantined": {"undecodable": 3, "nul_bytes": 2},
}


def token_ids(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return [*tokenizer(text).input_ids, tokenizer.eos_token_id]


def write_split(directory: Path, parts: Parts, split: str, rows: list[list[int]]) -> None:
    directory.mkdir(exist_ok=True)
    half = (len(rows) + 1) // 2
    shards = [rows[:half], rows[half:]] if len(rows) > 1 else [rows]
    names = [shard_name(number, len(shards)) for number in range(len(shards))]
    for name, of_shard in zip(names, shards, strict=True):
        write_shard(directory / name, [np.array(row, np.int64) for row in of_shard], SequenceReader(parts, 1, split))
    write_dataset_files(directory, names, ["0"] * len(names), split)


def build(root: Path, tokenizer: PreTrainedTokenizerFast, texts: Any = TEXTS, rows: Any = ROWS) -> Artifact:
    storage = Storage(str(root))
    documents = storage.build(
        "documents", stage="ingest", params={}, code_version=1, parents={}, make=lambda directory: LEFT_OUT
    )

    def make(directory: Path) -> dict[str, Any]:
        parts = Parts(str(root / "scratch"))
        chunks = []
        with SequenceWriter(parts, 0) as writer:
            for number, (source, split, text) in enumerate(texts):
                ids = token_ids(text, tokenizer)
                writer.append(split, f"doc{number}", 0, 0, np.array(ids, np.int32), len(text), len(ids))
                chunk = {"chunk_id": f"doc{number}:0", "doc_id": f"doc{number}", "index": 0, "source": source, "split": split}
                place = {"char_start": 0, "char_end": len(text), "num_tokens": len(ids) - 1, "heading_path": []}
                chunks.append(chunk | place)
        for part in range(2):
            table = pa.Table.from_pylist(chunks[part::2], schema=CHUNKS)
            pq.write_table(table, directory / f"chunks-{part:05d}-of-00002.parquet")
        write_split(directory, parts, "train", rows["train"])
        write_split(directory / "heldout", parts, "heldout", rows["heldout"])
        (directory / "tokenizer").mkdir()
        tokenizer.backend_tokenizer.save(str(directory / "tokenizer" / "tokenizer.json"))
        return SUMMARY

    return storage.build(
        "shards",
        stage="prepare",
        params={"target_length": ROW_LENGTH, "packing": {"min_bucket": 8}},
        code_version=1,
        parents={"documents": documents.digest},
        make=make,
    )


@pytest.fixture
def shards(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    return build(tmp_path / "storage", tokenizer).path


def shown(inspection: Inspection, width: int = 180) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(inspection, console)
    return console.export_text()


def test_rows_and_lengths_are_counted_from_the_shards(shards: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    train, heldout = inspect_shards(shards).splits
    sizes = [len(token_ids(text, tokenizer)) for _, _, text in TEXTS]
    assert (train.split, train.num_rows, train.num_sequences, train.num_shards) == ("train", 3, 4, 2)
    assert train.num_tokens == 2 * sizes[0] + sizes[1] + sizes[2]
    assert train.waste == pytest.approx(1 - train.num_tokens / (3 * ROW_LENGTH))
    assert (heldout.num_rows, heldout.num_tokens, heldout.num_shards) == (1, sizes[3], 1)
    for bins in (train.buckets, train.histogram):
        bounds = [b.upper_bound for b in bins]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == ROW_LENGTH
        for lower, b in zip([0, *bounds], bins, strict=False):
            inside = [n for n in (*sizes[:3], sizes[0]) if lower < n <= b.upper_bound]
            assert (b.num_sequences, b.num_tokens) == (len(inside), sum(inside))
    assert [b.upper_bound for b in train.buckets] == [8, 16, 32, 64]


def test_sources_come_from_all_chunk_tables_and_the_packers_report(shards: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = {(f.split, f.source): f for f in inspect_shards(shards).sources}
    assert list(found) == [("train", "books"), ("train", "web"), ("heldout", "web")]
    books = found["train", "books"]
    assert (books.num_documents, books.num_chunks, books.num_packed_tokens, books.wanted_share) == (2, 2, 300, 0.75)
    assert books.num_tokens == sum(len(tokenizer(text).input_ids) for _, _, text in TEXTS[:2])
    assert found["heldout", "web"].num_packed_tokens is None


def test_samples_show_where_documents_begin_and_end(shards: Path) -> None:
    inspection = inspect_shards(shards, tokenizer=shipped_tokenizer(shards))
    assert [(s.split, s.row) for s in inspection.samples] == [("train", 0), ("train", 1), ("train", 2), ("heldout", 0)]
    first, other = inspection.samples[0].sequences
    assert (first.chunk_id, other.chunk_id) == ("doc0:0", "doc2:0")
    assert first.begins == first.ends == "Rope bridges hang between cliffs.</s>"
    assert other.begins == "one</s>"
    assert inspection.samples[1].sequences[0].begins == r"[bold]A traveller[/bold]\npays one coin \x00\u202e</s>"
    assert inspection.samples == inspect_shards(shards, tokenizer=shipped_tokenizer(shards)).samples


def test_without_a_tokenizer_ids_are_shown(shards: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = inspect_shards(shards, num_samples=1, seed=3).samples[1:]
    assert sample.sequences[0].begins == " ".join(map(str, token_ids("two", tokenizer)))
    assert shipped_tokenizer(shards.parent) is None


def test_samples_depend_on_the_seed_alone(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [("web", "train", f"text {i}") for i in range(40)] + [("web", "heldout", "two")]
    rows = {"train": [list(range(12)), *([i] for i in range(12, 40))], "heldout": [[0]]}
    folder = build(tmp_path, tokenizer, texts, rows).path
    chosen = {seed: [s.row for s in inspect_shards(folder, seed=seed).samples if s.split == "train"] for seed in (0, 1)}
    assert chosen[0] != chosen[1]
    assert all(len(set(rows)) == 3 for rows in chosen.values())
    everything = inspect_shards(folder, num_samples=1000)
    assert (len(everything.samples[0].sequences), everything.samples[0].num_more) == (8, 4)


def test_tables_hold_what_was_found(shards: Path) -> None:
    text = shown(inspect_shards(shards, tokenizer=shipped_tokenizer(shards)))
    for pattern in (
        r" duplicate .* 1,234",
        r"near-duplicate .* 56",
        r"contains evaluated text .* 7 ",
        r"skipped: language .* 1 ",
        r"skipped: short .* 8 ",
        r"quarantined: undecodable .* 3 ",
        r"quarantined: nul_bytes .* 2 ",
        r"kept .* 4 ",
        r"books +│ train .* 300 │ +75\.0% │ +75\.0% │ +1\.50 │",
        r"web +│ train .* 100 │ +25\.0% │",
        r"web +│ heldout .* 100\.0% │",
        r"train +│ +2 │ +3 │ +64 │ +4 │",
        r"doc0:0 +│ Rope bridges hang between cliffs\.</s>",
        r"\[bold\]A traveller\[/bold\]\\npays one coin \\x00",
        r"Row 0 of heldout",
    ):
        assert re.search(pattern, text), pattern
    assert "is not known" not in text
    narrow = shown(inspect_shards(shards), width=60)
    assert max(map(len, narrow.splitlines())) <= 60


def test_documents_that_are_elsewhere(shards: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shards.rename(moved)
    inspection = inspect_shards(moved)
    assert inspection.left_out is None
    assert "is not known" in shown(inspection)
    assert inspect_shards(moved, read_manifest(next((tmp_path / "storage" / "documents").iterdir()))).left_out is not None


def test_plot_draws_every_part_and_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    inspection = inspect_shards(shards)
    plot(inspection, tmp_path / "one.png")
    plot(inspection, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    pixels = imread(tmp_path / "one.png")[:, :, :3]
    blue = np.abs(pixels - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=2) < 0.01
    width = pixels.shape[1]
    for third in range(3):  # lengths, buckets and sources each have bars of training's colour
        assert blue[:, third * width // 3 : (third + 1) * width // 3].sum() > 1000


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            lambda folder: (folder / "manifest.json").unlink(),
            r"holds no finished shards .* give the folder STORAGE/shards/DIGEST",
        ),
        (lambda folder: (folder / "data-00001-of-00002.arrow").unlink(), r"data-00001-of-00002.arrow is missing"),
        (lambda folder: flip_bit(folder / "heldout" / "data-00000-of-00001.arrow"), r"heldout/data-00000.* other content"),
        (lambda folder: flip_bit(folder / "chunks-00000-of-00002.parquet"), r"chunks-00000-of-00002.parquet has other content"),
    ],
)
def test_damage_is_named_in_one_sentence(shards: Path, damage: Any, complaint: str) -> None:
    damage(shards)
    with pytest.raises(UserError, match=complaint) as refused:
        inspect_shards(shards)
    assert "\n" not in str(refused.value)


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_another_stages_folder_is_refused(shards: Path) -> None:
    documents = next((shards.parent.parent / "documents").iterdir())
    with pytest.raises(UserError, match="the stage 'ingest', not shards"):
        inspect_shards(documents)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    peaks = []
    for num_rows in (6_000, 24_000):
        rows = {"train": [[0, 2, 2, 2]] * num_rows, "heldout": [[0]]}
        folder = build(tmp_path / str(num_rows), tokenizer, TEXTS, rows).path
        inspect_shards(folder)
        tracemalloc.start()
        inspect_shards(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 24_000 * 40  # the choice of samples takes 24 bytes a row, rows themselves take kilobytes
