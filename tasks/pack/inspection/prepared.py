"""What the data stage made, as tables on a terminal; `tasks.pack.inspection.figures` looks into the shards themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_schemas.ledger import Ledger, ledger_of
from data_schemas.manifest import Manifest

_WORST = 3


def show_prepared(documents: Manifest, shards: Manifest, console: Console) -> None:
    """Print what happened to the corpus, and how much of each source and length bucket is packed."""
    read, packed = documents.summary, shards.summary
    if ledger := ledger_of(packed) or ledger_of(read):
        console.print(ledger_table(ledger))
    console.print(f"{read['num_files_unmatched']:,} files match no pattern.")
    for line in _found(read, packed):
        console.print(line, markup=False)
    title = f"{packed['num_rows']:,} rows, {packed['num_tokens']:,} tokens, {packed['waste']:.2%} waste"
    buckets = Table("source", title=title, title_justify="left")
    for name in ("up to", "chunks", "tokens", "repeats", "packed", "packed tokens"):
        buckets.add_column(name, justify="right")
    longest = max(bucket["upper_bound"] for bucket in packed["buckets"])
    for bucket in packed["buckets"]:
        counts = [f"{bucket[name]:,}" for name in ("upper_bound", "num_chunks", "num_tokens")]
        if bucket["upper_bound"] == longest:
            counts[0] += " and longer"
        used = [f"{bucket[name]:,}" for name in ("num_used", "num_used_tokens")]
        buckets.add_row(bucket["source"], *counts, f"{bucket['repeats']:.2f}", *used)
    console.print(buckets)
    for warning in packed.get("warnings", ()):
        console.print(f"Warning: {warning}", markup=False)


def ledger_table(ledger: Ledger) -> Table:
    """What became of every input, step by step; sources follow each other."""
    table = Table("source", "step", title="Ledger", title_justify="left")
    for name in ("documents", "bytes", "tokens"):
        table.add_column(name, justify="right")
    previous = None
    for source, step, num_documents, num_bytes, num_tokens in ledger.table():
        if previous not in (None, source):
            table.add_section()
        shown = "" if source == previous else source
        previous = source
        table.add_row(
            Text(shown), Text(step), f"{num_documents:,}", f"{num_bytes:,}", "" if num_tokens is None else f"{num_tokens:,}"
        )
    return table


def _found(read: dict[str, Any], packed: dict[str, Any]) -> Iterator[str]:
    """What documents share with each other, and what remains of held-out text in training."""
    if pairs := read.get("num_excerpts", 0):
        yield f"{pairs:,} pairs of documents share a passage (excerpts.parquet)."
    if given_up := read.get("num_heldout_given_up", 0):
        yield f"{given_up:,} held-out documents are copied in too much training text to remove it (shared_text.parquet)."
    if seen := packed.get("heldout_seen"):
        worst = "".join(f"; {row['share']:.1%} of {row['source_uri']}" for row in seen["worst"][:_WORST])
        yield f"{seen['share']:.2%} of the held-out text is in training rows{worst}."
