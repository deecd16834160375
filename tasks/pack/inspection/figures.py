"""What is in a folder of shards: lengths, buckets, sources, waste, documents left out by ingest, and some rows.

First every file is compared with its recorded hash. Rows and lengths are then counted from the shards, row by row. The share
of each source and the documents left out come from the manifests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.data_card import DataCard, data_card
from data_schemas.errors import UserError
from data_schemas.ledger import Ledger, ledger_of
from data_schemas.manifest import Manifest
from data_schemas.storage import Artifact, read_manifest
from tasks.pack.buckets import bucket_bounds
from tasks.pack.inspection.samples import SampleRow, sample_row
from tasks.pack.reading import PackedRows, open_rows, shuffled

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ROWS_A_BATCH = 4096


@dataclass(frozen=True)
class Bin:
    """Sequences of at most `upper_bound` tokens that are too long for the bin before; each counted as often as it is packed."""

    upper_bound: int
    num_sequences: int
    num_tokens: int


@dataclass(frozen=True)
class SplitFigures:
    """The rows of one split. `buckets` are those of packing, by the length of the whole document that a sequence is from;
    `histogram` has two bins for each doubling of a sequence's length."""

    split: str
    num_shards: int
    num_rows: int
    num_sequences: int
    num_tokens: int
    row_length: int
    buckets: tuple[Bin, ...]
    histogram: tuple[Bin, ...]

    @property
    def waste(self) -> float:
        """Share of the rows' places that hold no token."""
        return 1 - self.num_tokens / (self.num_rows * self.row_length) if self.num_rows else 0.0


@dataclass(frozen=True)
class SourceFigures:
    """One source in one split.

    num_documents, num_chunks, num_tokens   what was chunked; tokens without BOS and EOS
    num_packed_tokens   what is packed, repeats included; None for held-out rows, which the manifest does not count by source
    wanted_share        share of the packed tokens by the sources' weights; None without weights
    repeats             how often its tokens are packed
    """

    source: str
    split: str
    num_documents: int
    num_chunks: int
    num_tokens: int
    num_packed_tokens: int | None
    wanted_share: float | None
    repeats: float | None


@dataclass(frozen=True)
class LeftOut:
    """Numbers of inputs that ingest left out, from its manifest; `skipped` and `quarantined` by reason."""

    num_documents: int
    num_duplicates: int
    num_near_duplicates: int
    num_contaminated: int
    skipped: dict[str, int]
    quarantined: dict[str, int]


@dataclass(frozen=True)
class Inspection:
    """Everything found. `left_out` is None if the documents' manifest is not available, `ledger` and `card` for older shards."""

    directory: str
    digest: str
    splits: tuple[SplitFigures, ...]
    sources: tuple[SourceFigures, ...]
    left_out: LeftOut | None
    documents_digest: str
    samples: tuple[SampleRow, ...]
    ledger: Ledger | None = None
    card: DataCard | None = None


def inspect_shards(
    directory: Path,
    documents: Manifest | None = None,
    tokenizer: Tokenizer | None = None,
    num_samples: int = 3,
    seed: int = 0,
) -> Inspection:
    """Check and count a finished `shards` artifact; memory does not grow with its size.

    Args:
        directory: the artifact's folder, such as STORAGE/shards/DIGEST.
        documents: manifest of the shards' documents; by default it is looked for in the same storage.
        tokenizer: to decode samples; see `shipped_tokenizer`.
        num_samples: training rows to show, chosen by `seed`; one held-out row is added.

    Raises:
        UserError: no finished shards there, or a file that is missing, cut short or changed.
    """
    manifest = _manifest(directory)
    Artifact(directory, manifest, reused=True).check()
    samples: list[SampleRow] = []
    splits: list[SplitFigures] = []
    for split, folder, num in (("train", directory, num_samples), ("heldout", directory / "heldout", min(1, num_samples))):
        rows = open_rows(folder)
        splits.append(_split_figures(split, rows, manifest))
        chosen = sorted(shuffled(len(rows), seed, len(splits))[:num].tolist())
        samples += [sample_row(split, rows, index, tokenizer) for index in chosen]
    documents_digest = manifest.parents.get("documents", "")
    documents = documents or read_manifest(directory.absolute().parent.parent / "documents" / documents_digest)
    return Inspection(
        str(directory),
        manifest.digest,
        tuple(splits),
        tuple(_sources(directory, manifest.summary)),
        _left_out(documents.summary) if documents and documents.digest == documents_digest else None,
        documents_digest,
        tuple(samples),
        ledger_of(manifest.summary),
        data_card(manifest.params["target_length"], manifest.summary),
    )


def shipped_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer stored with the shards, or None."""
    from tokenizers import Tokenizer

    path = directory / "tokenizer" / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.is_file() else None


def _manifest(directory: Path) -> Manifest:
    manifest = read_manifest(directory)
    if manifest is None:
        raise UserError(
            f"{directory} holds no finished shards (no valid manifest.json): give the folder STORAGE/shards/DIGEST that "
            "the prepare stage printed."
        )
    if manifest.stage != "prepare":
        raise UserError(f"{directory} is the result of the stage {manifest.stage!r}, not shards: give STORAGE/shards/DIGEST.")
    return manifest


def _split_figures(split: str, rows: PackedRows, manifest: Manifest) -> SplitFigures:
    row_length = manifest.params["target_length"]
    bounds = {
        "buckets": bucket_bounds(manifest.params["packing"]["min_bucket"], row_length),
        "histogram": _histogram_bounds(row_length),
    }
    counts = {name: np.zeros((2, len(of_name)), np.int64) for name, of_name in bounds.items()}
    for lengths in _sequence_lengths(rows):
        for name, of_name in bounds.items():
            place = np.searchsorted(of_name, lengths, side="left")
            counts[name][0] += np.bincount(place, minlength=len(of_name))
            counts[name][1] += np.bincount(place, lengths, minlength=len(of_name)).astype(np.int64)
    num_sequences, num_tokens = counts["histogram"].sum(axis=1).tolist()
    if "heldout_buckets" in manifest.summary:  # rows do not say how long the document of a sequence is, but the packer did
        counts["buckets"] = _packed_buckets(
            manifest.summary["buckets" if split == "train" else "heldout_buckets"], bounds["buckets"]
        )
    bins = {name: tuple(map(Bin, of_name, *counts[name].tolist())) for name, of_name in bounds.items()}
    return SplitFigures(
        split, len(list(rows.directory.glob("*.arrow"))), len(rows), num_sequences, num_tokens, row_length, **bins
    )


def _packed_buckets(reports: list[dict[str, Any]], bounds: list[int]) -> np.ndarray:
    """int64 [2, num_buckets]: sequences and tokens in rows, of all sources."""
    counts = np.zeros((2, len(bounds)), np.int64)
    for report in reports:
        counts[:, bounds.index(report["upper_bound"])] += [report["num_used"], report["num_used_tokens"]]
    return counts


def _sequence_lengths(rows: PackedRows) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _ROWS_A_BATCH):
        batch = range(start, min(start + _ROWS_A_BATCH, len(rows)))
        yield np.concatenate([rows.row(index)["seq_lengths"] for index in batch])


def _histogram_bounds(row_length: int) -> list[int]:
    steps = range(2 * int(np.ceil(np.log2(row_length))))
    return [*sorted({bound for step in steps if (bound := int(2 ** (step / 2))) < row_length}), row_length]


def _sources(directory: Path, summary: dict[str, Any]) -> Iterator[SourceFigures]:
    """Chunks are counted from their tables, a batch at a time; packed tokens come from the packer's own report."""
    counts: dict[tuple[str, str], np.ndarray] = {}
    for path in sorted(directory.glob("chunks*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["source", "split", "index", "num_tokens"]):
            is_first = pc.equal(batch["index"], 0).cast(pa.int64())
            columns = {"split": batch["split"], "source": batch["source"], "first": is_first, "tokens": batch["num_tokens"]}
            summed = (
                pa.table(columns)
                .group_by(["split", "source"])
                .aggregate([("first", "sum"), ("first", "count"), ("tokens", "sum")])
            )
            for row in summed.to_pylist():
                more = np.array([row["first_sum"], row["first_count"], row["tokens_sum"]], np.int64)
                counts[row["split"], row["source"]] = counts.get((row["split"], row["source"]), 0) + more
    packed = _packed_tokens(summary)
    wanted = {share["name"]: share.get("wanted") for share in summary.get("sources", ())}
    for split, source in sorted(counts, key=lambda key: (key[0] != "train", key[1])):
        num_documents, num_chunks, num_tokens = counts[split, source].tolist()
        used, available = packed.get(source, (None, 0)) if split == "train" else (None, 0)
        share = wanted.get(source) if split == "train" else None
        repeats = used / available if used is not None and available else None
        yield SourceFigures(source, split, num_documents, num_chunks, num_tokens, used, share, repeats)


def _packed_tokens(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(packed, available) training tokens by source, as the packer counted them, BOS and EOS included."""
    packed: dict[str, tuple[int, int]] = {}
    for bucket in summary.get("buckets", ()):
        if "source" in bucket:
            used, available = packed.get(bucket["source"], (0, 0))
            packed[bucket["source"]] = (used + bucket["num_used_tokens"], available + bucket["num_tokens"])
    return packed


def _left_out(summary: dict[str, Any]) -> LeftOut:
    return LeftOut(
        num_documents=summary["num_documents"],
        num_duplicates=summary.get("num_duplicates", 0),
        num_near_duplicates=summary.get("num_near_duplicates", 0),
        num_contaminated=summary.get("num_contaminated", 0),
        skipped=dict(summary["skipped"]),
        quarantined=dict(summary.get("quarantined", {})),
    )
