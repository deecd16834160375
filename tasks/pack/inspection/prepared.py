"""What the data stage made, as tables on a terminal; `tasks.pack.inspection.figures` looks into the shards themselves."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from data_schemas.manifest import Manifest

_COUNTS = {
    "train": "for training",
    "heldout": "held out",
    "duplicates": "removed: duplicate",
    "near_duplicates": "removed: near-duplicate",
    "contaminated": "removed: contains evaluated text",
}


def show_prepared(documents: Manifest, shards: Manifest, console: Console) -> None:
    """Print what happened to the corpus, and how much of each source and length bucket is packed."""
    read, packed = documents.summary, shards.summary
    inputs = Table("documents", "number", title="Corpus", title_justify="left")
    for name, told in _COUNTS.items():
        inputs.add_row(told, f"{read[f'num_{name}']:,}")
    inputs.add_row("files that match no pattern", f"{read['num_files_unmatched']:,}")
    for kind in ("skipped", "quarantined"):
        for reason, count in read[kind].items():
            inputs.add_row(f"{kind}: {reason}", f"{count:,}")
    console.print(inputs)
    title = f"{packed['num_rows']:,} rows, {packed['num_tokens']:,} tokens, {packed['waste']:.2%} waste"
    buckets = Table("source", title=title, title_justify="left")
    for name in ("up to", "chunks", "tokens", "repeats", "packed", "packed tokens"):
        buckets.add_column(name, justify="right")
    for bucket in packed["buckets"]:
        counts = [f"{bucket[name]:,}" for name in ("upper_bound", "num_chunks", "num_tokens")]
        used = [f"{bucket[name]:,}" for name in ("num_used", "num_used_tokens")]
        buckets.add_row(bucket["source"], *counts, f"{bucket['repeats']:.2f}", *used)
    console.print(buckets)
