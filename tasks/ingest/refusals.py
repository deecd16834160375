"""Errors that end ingest: too little of the corpus can be read, or one side of the split is empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from data_schemas.addresses import without_secrets
from data_schemas.errors import UserError
from data_schemas.params import CorpusParams
from data_schemas.parts import Parts

QUARANTINE_FILE = "quarantine.parquet"


def refuse_empty(params: CorpusParams, num_files: int, quarantined: Mapping[str, int], skipped: Mapping[str, int]) -> None:
    """UserError for a corpus without a document; it says what happened to the inputs."""
    told = _told(quarantined)
    where = "; ".join(f"{without_secrets(s.uri)} ({', '.join(s.include)})" for s in params.sources)
    raise UserError(
        f"The corpus is empty: {where} matched {num_files} files, of which {sum(quarantined.values())} inputs were "
        f"refused{f' ({told})' if told else ''} and {sum(skipped.values())} were left out"
        f"{f' ({_told(skipped)})' if skipped else ''}; correct corpus.sources or their include patterns."
    )


def refuse_quarantined(params: CorpusParams, num_readable: int, quarantined: Mapping[str, int], files: Parts) -> None:
    """UserError if more than `max_quarantined_fraction` of the inputs cannot be read.

    `num_readable` counts every input that can be read, also those removed later; `files` holds the quarantine table.
    """
    num_refused = sum(quarantined.values())
    num_inputs = num_readable + num_refused
    share = num_refused / num_inputs if num_inputs else 0.0
    if share > params.max_quarantined_fraction:
        raise UserError(
            f"{num_refused} of {num_inputs} inputs ({share:.0%}) cannot be read ({_told(quarantined)}; the first is "
            f"{_first_refused(files)}), more than corpus.max_quarantined_fraction {params.max_quarantined_fraction}: repair or "
            "exclude them, or raise that limit."
        )


def refuse_finished(params: CorpusParams, summary: Mapping[str, Any], files: Parts) -> None:
    """`refuse_quarantined` for documents of an earlier run, which may have had a higher limit."""
    kept_or_removed = ("num_documents", "num_duplicates", "num_near_duplicates", "num_excerpts_removed", "num_contaminated")
    num_readable = sum(summary[name] for name in kept_or_removed) + sum(summary["skipped"].values())
    refuse_quarantined(params, num_readable, summary["quarantined"], files)


def refuse_one_sided(params: CorpusParams, documents: Mapping[str, int]) -> None:
    """UserError if training or evaluation would have no document; `documents` counts them by split."""
    for side, name, change in (("heldout", "held-out", "raise"), ("train", "training", "lower")):
        if not documents.get(side):
            trained = [source.label for source in params.sources if source.train_only]
            raise UserError(
                f"The corpus has {sum(documents.values())} documents but no {name} document with corpus.heldout_fraction "
                f"{params.heldout_fraction} and split_seed {params.split_seed}"
                + (
                    f", as sources with train_only ({', '.join(trained)}) hold nothing out"
                    if trained and side == "heldout"
                    else ""
                )
                + f": {change} heldout_fraction, choose another split_seed, or choose a finer work_by (records with the same `work` or "
                "`id` are one work)."
            )


def _told(quarantined: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(quarantined.items()))


def _first_refused(files: Parts) -> str:
    with files.reading(QUARANTINE_FILE) as path:
        row = next(pq.ParquetFile(path).iter_batches(batch_size=1)).to_pylist()[0]
    return f"{row['source_uri']}: {row['detail']}"
