"""Packed rows as a page: tokens by source and length bucket, repeats, waste, and the requested and reached mix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_schemas.ledger import ledger_of
from data_schemas.params import PipelineParams
from data_schemas.quantities import data_size
from data_schemas.storage import Artifact
from tasks.prefect_tasks.pages.elements import Page, Picture, ledger_markdown, markdown_table, plain

KEY = "packing"
_MOST_DRAWN_BYTES = 2_000_000_000  # the figure reads every row, which takes some seconds for this size


def packing_page(artifact: Artifact, params: PipelineParams) -> Page:
    """A page of the `shards` artifact, from its manifest."""
    return Page(KEY, "\n\n".join(_sections(artifact, params)) + "\n")


def packing_pictures(artifact: Artifact) -> Iterator[Picture]:
    """The figure of `ropeway inspect`, if the shards are on this machine and small enough to read."""
    size = sum(entry.num_bytes for entry in artifact.manifest.files)
    if artifact.remote is not None or size > _MOST_DRAWN_BYTES:
        return
    from tasks.pack.inspection.figures import inspect_shards
    from tasks.pack.inspection.plot import plot

    with tempfile.TemporaryDirectory(prefix="ropeway-") as folder:
        path = Path(folder) / "packing.png"
        plot(inspect_shards(artifact.folder, num_samples=0), path)
        yield Picture("packing-plot", path.read_bytes())


def _sections(artifact: Artifact, params: PipelineParams) -> Iterator[str]:
    packed = artifact.manifest.summary
    target = params.row_tokens
    yield (
        f"## Packed rows\n\n{packed['num_rows']:,} rows of up to {target:,} tokens hold {packed['num_tokens']:,} tokens, "
        f"{packed['waste']:.2%} of their space is empty; held out: {packed['num_heldout_rows']:,} rows, "
        f"{packed['num_heldout_tokens']:,} tokens, {packed['heldout_waste']:.2%} empty."
    )
    yield _cutting(packed)
    for warning in packed.get("warnings", ()):
        yield f"**Warning:** {plain(warning, 1000)}"
    yield f"### Tokens by source and length of document\n\n{_buckets(packed['buckets'])}"
    if shares := [
        *_shares("source", packed["sources"]),
        *_shares("length", packed["by_length"]),
        *_retrieval(packed),
        *_instructions(packed),
    ]:
        yield f"### Mix of the packed tokens\n\n{markdown_table(('by', 'name', 'requested', 'reached'), shares)}"
    if ledger := ledger_of(packed):
        yield f"### What became of every input\n\n{ledger_markdown(ledger)}"
    if seen := packed.get("heldout_seen"):
        yield f"### Held-out text in training\n\n{_seen(seen)}"
    shards = [entry for entry in artifact.manifest.files if entry.path.endswith(".arrow")]
    total = data_size(sum(entry.num_bytes for entry in shards))
    yield f"{len(shards):,} shards, {total}, in artifact `{artifact.location}`. `ropeway inspect` shows their rows."


def _seen(seen: dict[str, Any]) -> str:
    told = (
        f"{seen['share']:.2%} of the word 13-grams of all {seen['num_documents']:,} held-out documents occur in training rows."
    )
    if not seen["worst"]:
        return told
    rows = [(plain(row["source_uri"]), row["record"], f"{row['share']:.1%}") for row in seen["worst"]]
    return f"{told}\n\n{markdown_table(('held-out document', 'record', 'share'), rows)}\n\nAll are in `seen_heldout.parquet`."


def _cutting(packed: dict[str, Any]) -> str:
    longest = f"the longest document has {packed['longest_document_tokens']:,} tokens"
    return (
        f"{packed['num_chunks']:,} chunks of at most {packed['chunk_tokens']:,} tokens; {packed['num_fragments']:,} of them are "
        f"pieces of documents that did not fit; {longest}."
    )


def _buckets(buckets: list[dict[str, Any]]) -> str:
    longest = max(bucket["upper_bound"] for bucket in buckets)
    rows = [
        (
            plain(bucket["source"]),
            f"{bucket['upper_bound']:,}" + (" and longer" if bucket["upper_bound"] == longest else ""),
            bucket["num_chunks"],
            bucket["num_tokens"],
            f"{bucket['repeats']:.2f}",
            bucket["num_used"],
            bucket["num_used_tokens"],
        )
        for bucket in buckets
        if bucket["num_chunks"]
    ]
    return markdown_table(("source", "up to (tokens)", "chunks", "tokens", "repeats", "packed", "packed tokens"), rows)


def _retrieval(packed: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The row of the retrieval documents in the mix, if there are any."""
    told = packed.get("retrieval")
    return [("kind", "retrieval documents", f"{told['wanted']:.1%}", f"{told['reached']:.1%}")] if told else []


def _shares(side: str, shares: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Rows of the mix; none for a single source or length."""
    if len(shares) < 2:
        return []
    return [
        (side, plain(share["name"]), "" if share["wanted"] is None else f"{share['wanted']:.1%}", f"{share['reached']:.1%}")
        for share in shares
    ]


def _instructions(packed: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The row of the conversations, if there is instruction data; its share follows from the sources."""
    told = packed.get("instructions")
    return [("kind", "instruction data", "", f"{told['share']:.1%}")] if told else []
