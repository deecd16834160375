"""Advice: extend the context for this corpus, or cut its documents into chunks.

A longer window is worth its training when documents are longer than the base's window, fit the target, and their parts explain
one another. Chunks with a reorder config are better, and need no training, when

    nothing is long      under LONG_SHARE of the tokens are in documents longer than the base's window
    nothing fits         over CUT_SHARE of the tokens are in documents longer than the target, which are cut in any case
    no budget            the extension needs training, and the run has fewer than MIN_ROWS rows or takes longer than its budget
    parts independent    the base's perplexity does not fall when its own context doubles, as measured by `compare-rope`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from data_schemas.rope_comparison import ContextGain, read_rope_comparison
from data_schemas.storage import Storage, read_manifest

LONG_SHARE = 0.05
CUT_SHARE = 0.5
MIN_ROWS = 100  # the shipped demo recovers its perplexity in 240; YaRN's authors used 25,600
_SAMPLED_DOCUMENTS = 8
_SAMPLED_CHARACTERS = 20_000


@dataclass(frozen=True)
class CorpusLengths:
    """Tokens of each training document, int64 [documents], estimated from its bytes and the tokens a byte of a sample."""

    tokens: np.ndarray
    documents_digest: str

    def share_beyond(self, length: int) -> float:
        """Share of all tokens that are in documents of more than `length` tokens."""
        return float(self.tokens[self.tokens > length].sum() / max(1, self.tokens.sum()))

    def describe(self) -> str:
        middle, high, most = np.quantile(self.tokens, [0.5, 0.9, 1.0]).astype(int)
        return (
            f"{len(self.tokens):,} documents, about {int(self.tokens.sum()):,} tokens; median {middle:,}, 90 % up to {high:,}, "
            f"longest {most:,}"
        )


def find_corpus_lengths(params: PipelineParams, storage: Storage, tokenizer: Any) -> CorpusLengths | None:
    """From the documents that an earlier run made of this corpus, without reading all texts; None if there are none."""
    import pyarrow.parquet as pq

    from data_schemas.documents import document_files
    from tasks.tokens.encoding import encoder_of

    wanted = params.corpus.model_dump(mode="json")
    folder = next((f for f, m in _manifests(storage.root / "documents") if _agrees(m.params, wanted)), None)
    if folder is None:
        return None
    num_bytes, sampled_bytes, sampled_tokens = [], 0, 0
    for file in document_files(folder):
        parquet = pq.ParquetFile(file)
        table = parquet.read(columns=["num_bytes", "split"])
        of_training = np.asarray(table["split"].to_pylist()) == "train"
        num_bytes.append(table["num_bytes"].to_numpy()[of_training])
        if not sampled_bytes:
            for batch in parquet.iter_batches(batch_size=_SAMPLED_DOCUMENTS, columns=["text"]):
                texts = [text[:_SAMPLED_CHARACTERS] for text in batch["text"].to_pylist()]
                sampled_bytes = sum(len(text.encode()) for text in texts)
                sampled_tokens = sum(len(encoded.ids) for encoded in encoder_of(tokenizer).encode(texts))
                break
    ratio = sampled_tokens / max(1, sampled_bytes)
    return CorpusLengths((np.concatenate(num_bytes) * ratio).astype(np.int64), folder.name)


def _agrees(recorded: Any, wanted: Any) -> bool:
    """Whether `wanted` has every recorded value. What a manifest leaves out, such as a URI's password, may differ."""
    from data_schemas.addresses import without_secrets

    if isinstance(recorded, dict):
        return isinstance(wanted, dict) and all(key in wanted and _agrees(recorded[key], wanted[key]) for key in recorded)
    if isinstance(recorded, list):
        return isinstance(wanted, list) and len(recorded) == len(wanted) and all(map(_agrees, recorded, wanted))
    return bool(recorded == wanted or (isinstance(wanted, str) and recorded == without_secrets(wanted)))


def find_context_gain(storage: Storage, documents_digest: str, base_fingerprint: str) -> ContextGain | None:
    """How much the base gains from its own context on these documents, by `compare-rope`; None if that was not run."""
    parents = {"documents": documents_digest, "base": base_fingerprint}
    for folder, manifest in _manifests(storage.root / "rope_comparisons"):
        if manifest.parents == parents:
            return read_rope_comparison(folder / "rope_comparison.json").context_gain
    return None


def _manifests(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    """Finished artifacts below `folder`, newest first."""
    found = [(path.parent, read_manifest(path.parent)) for path in folder.glob("*/manifest.json")]
    finished = [(path, manifest) for path, manifest in found if manifest is not None]
    yield from sorted(finished, key=lambda pair: -(pair[0] / "manifest.json").stat().st_mtime)


def reasons_to_chunk(
    *,
    base_window: int,
    target_length: int,
    training_required: bool,
    rows: int,
    hours: float | None,
    budget_hours: float | None,
    lengths: CorpusLengths | None,
    context_gain: ContextGain | None,
) -> list[str]:
    """Why chunks are better than extending, a sentence each; empty if there is no reason."""
    found = []
    if lengths is not None:
        long, cut = lengths.share_beyond(base_window), lengths.share_beyond(target_length)
        if long < LONG_SHARE:
            found.append(
                f"Only {long:.1%} of the tokens are in documents longer than the base's window of {base_window:,}, so there is "
                "almost nothing to learn long context from, and almost nothing that needs it."
            )
        if cut > CUT_SHARE:
            found.append(
                f"{cut:.0%} of the tokens are in documents longer than the target of {target_length:,}, which are cut in any case: "
                "chunk them, or raise model.target_length."
            )
    if training_required and rows < MIN_ROWS:
        found.append(
            f"This extension needs training, and {rows:,} rows are too few, as none with fewer than {MIN_ROWS} has worked so far: "
            "raise training.steps, or chunk."
        )
    if budget_hours is not None and hours is not None and hours > budget_hours:
        remedy = "chunk" if training_required else "use scaling only, or chunk"
        found.append(f"Training takes about {hours:,.1f} h, more than the budget of {budget_hours:g} h: {remedy}.")
    if context_gain is not None and context_gain.high is not None and context_gain.high >= 1:
        found.append(
            f"The base shows no gain from {context_gain.from_length:,} to {context_gain.to_length:,} tokens of context (perplexity "
            f"times {context_gain.ratio:.3f} [{context_gain.low:.3f}, {context_gain.high:.3f}]), so the parts of these documents "
            "are independent."
        )
    return found
