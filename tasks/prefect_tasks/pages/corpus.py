"""The corpus as a page: sources and licences, what is held out, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.ledger import ledger_of
from data_schemas.params import CorpusParams
from data_schemas.quantities import data_size
from data_schemas.storage import Artifact
from tasks.prefect_tasks.pages.elements import Page, ledger_markdown, markdown_table, plain, small_file

KEY = "corpus"
_EXAMPLES = 5
_GROUPED = ["source", "licence", "split"]
_ROWS_LOOKED_AT = 50_000


def corpus_page(artifact: Artifact, params: CorpusParams) -> Page:
    """A page of the `documents` artifact, from its manifest and its tables; memory does not grow with the corpus."""
    return Page(KEY, "\n\n".join(_sections(artifact, params)) + "\n")


def _sections(artifact: Artifact, params: CorpusParams) -> Iterator[str]:
    done = artifact.manifest.summary
    yield (
        f"## Corpus\n\n{done['num_documents']:,} documents, {data_size(done['num_bytes'])}: {done['num_train']:,} for training "
        f"({done['num_works_train']:,} works) and {done['num_heldout']:,} held out ({done['num_works_heldout']:,} works)."
    )
    yield f"### Sources\n\n{_sources(artifact, params)}"
    if ledger := ledger_of(done):
        yield f"### What became of every input\n\n{ledger_markdown(ledger)}"
    yield f"### Left out\n\n{_left_out(done)}"
    if done["quarantined"]:
        yield f"### Quarantined inputs\n\n{_quarantined(artifact)}\n\nAll of them are in `quarantine.parquet`."
    if done["num_duplicates"] + done["num_near_duplicates"]:
        yield f"### First duplicates\n\n{_duplicates(artifact)}\n\nAll of them are in `duplicates.parquet`."
    if done.get("num_excerpts"):
        yield f"### Passages in two documents\n\n{_excerpts(artifact)}\n\nAll pairs are in `excerpts.parquet`."
    if shared := _shared_text(artifact):
        yield f"### Held-out text that many training documents share\n\n{shared}\n\nAll of it is in `shared_text.parquet`."
    if contaminated := _contaminated(artifact):
        yield f"### Training text that overlaps with the evaluation\n\n{contaminated}\n\nAll passages are in `contamination.parquet`."
    yield f"Artifact `{artifact.location}`."


def _sources(artifact: Artifact, params: CorpusParams) -> str:
    """By source and licence of the documents. If they are only in remote storage, by source, with the parameters' licence."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    names = [e.path for e in artifact.manifest.files if e.path.startswith("documents-")]
    if not all((artifact.folder / name).is_file() for name in names):
        told = {source.label: source.licence for source in params.sources}
        by_source = artifact.manifest.summary["sources"].items()
        rows = [(plain(n), plain(told.get(n, "")), c["documents"], data_size(c["bytes"])) for n, c in by_source]
        return markdown_table(("source", "licence", "documents", "text"), rows)
    for name in names:
        file = pq.ParquetFile(artifact.folder / name)
        for batch in file.iter_batches(columns=[*_GROUPED, "num_bytes"]):
            summed = pa.Table.from_batches([batch]).group_by(_GROUPED).aggregate([("num_bytes", "count"), ("num_bytes", "sum")])
            for row in summed.to_pylist():
                of_source = counts.setdefault((row["source"], row["licence"]), Counter())
                of_source.update({row["split"]: row["num_bytes_count"], "bytes": row["num_bytes_sum"]})
    return markdown_table(
        ("source", "licence", "documents", "for training", "held out", "text"),
        [
            (plain(source), plain(licence), c["train"] + c["heldout"], c["train"], c["heldout"], data_size(c["bytes"]))
            for (source, licence), c in sorted(counts.items())
        ],
    )


def _left_out(done: dict[str, Any]) -> str:
    rows = [
        ("duplicate of another document", done["num_duplicates"]),
        ("near-duplicate of another document", done["num_near_duplicates"]),
        ("repeats a passage of another document", done.get("num_excerpts_removed", 0)),
        ("overlaps with the evaluation", done["num_contaminated"]),
        *((f"skipped: {plain(reason)}", count) for reason, count in done["skipped"].items()),
        *((f"quarantined: {plain(reason)}", count) for reason, count in done["quarantined"].items()),
        ("files that match no pattern", done["num_files_unmatched"]),
        ("evaluation prompts that remove nothing: too short, or boilerplate", done["num_prompts_without_effect"]),
    ]
    return markdown_table(("why", "number"), rows)


def _quarantined(artifact: Artifact) -> str:
    """The first input of each reason."""
    counts = artifact.manifest.summary["quarantined"]
    first: dict[str, dict[str, Any]] = {}
    for row in _rows(artifact, "quarantine.parquet"):
        first.setdefault(row["reason"], row)
        if len(first) == len(counts):
            break
    told = {reason: (plain(_place(row)), plain(row["detail"])) for reason, row in first.items()}
    rows = [(plain(reason), count, *told.get(reason, ("", ""))) for reason, count in counts.items()]
    return markdown_table(("reason", "inputs", "example", "detail"), rows)


def _duplicates(artifact: Artifact) -> str:
    rows = []
    for row in _rows(artifact, "duplicates.parquet"):
        rows.append(
            (plain(_place(row)), row["kind"], f"{row['similarity']:.2f}", plain(row["kept_source_uri"]), row["kept_split"])
        )
        if len(rows) == _EXAMPLES:
            break
    return markdown_table(("left out", "kind", "similarity", "kept", "split of the kept"), rows)


def _excerpts(artifact: Artifact) -> str:
    found = sorted(_rows(artifact, "excerpts.parquet"), key=lambda row: -row["share"])
    rows = [
        (plain(_place(row)), plain(row["other_source_uri"]), f"{row['share']:.1%}", "yes" if row["removed"] else "no")
        for row in found[:_EXAMPLES]
    ]
    return markdown_table(("document", "shares with", "of the shorter one", "left out"), rows)


def _shared_text(artifact: Artifact) -> str:
    found = sorted(_rows(artifact, "shared_text.parquet"), key=lambda row: -row["share"])
    rows = [
        (
            plain(_place(row)),
            f"{row['share']:.1%}",
            row["num_documents"],
            "copies stay" if row["is_given_up"] else "boilerplate",
            plain(row["example"], 80),
        )
        for row in found[:_EXAMPLES]
    ]
    return markdown_table(("held out", "share of it", "training documents", "taken as", "passage"), rows) if rows else ""


def _contaminated(artifact: Artifact) -> str:
    """The worst overlaps; documents that were left out come first."""
    found = sorted(_rows(artifact, "contamination.parquet"), key=lambda row: (not row["removed"], -row["share"]))
    rows = [
        (
            plain(_place(row)),
            plain(row["evaluated_in"]),
            f"{row['share']:.1%}",
            "yes" if row["removed"] else "no",
            plain(row["example"], 80),
        )
        for row in found[:_EXAMPLES]
    ]
    return markdown_table(("document", "also in", "share", "left out", "passage"), rows) if rows else ""


def _rows(artifact: Artifact, name: str) -> Iterator[dict[str, Any]]:
    """The first rows of a table; none if it cannot be read quickly."""
    with small_file(artifact, name) as path:
        if path is None:
            return
        num_rows = 0
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
            num_rows += len(batch)
            if num_rows >= _ROWS_LOOKED_AT:
                return


def _place(row: dict[str, Any]) -> str:
    """The end of the URI, and the record in the file."""
    name = "/".join(Path(row["source_uri"]).parts[-3:])
    return f"{name}, record {row['record']}" if row["record"] else name
