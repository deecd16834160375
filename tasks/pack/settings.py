"""Checks of `chunking` and `packing` before a document is read, and digests of the files that chunking depends on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from data_schemas.manifest import hash_file
from data_schemas.params import ChunkingParams, PipelineParams
from tasks.pack.buckets import Cells, bucket_bounds
from tasks.pack.budgets import SourceShare, apply_budgets


def source_shares(params: PipelineParams) -> tuple[SourceShare, ...]:
    """Names and weights of the corpus' sources, in their order."""
    return tuple(SourceShare(s.label, s.weight, s.max_repeats) for s in params.corpus.sources)


def check_settings(params: PipelineParams) -> None:
    """UserError for settings that cannot work, as far as a quick check can tell."""
    check_packing(params)
    chunking = params.chunking
    if chunking.spacy_pipeline or chunking.embedding_model or chunking.language != "en":
        check_chunking(chunking)  # the defaults need no check, which takes seconds


def check_packing(params: PipelineParams) -> None:
    """UserError for buckets and sources that do not exist."""
    target = params.row_tokens
    names = tuple(share.name for share in source_shares(params))
    nothing = np.empty(0, np.int64)
    cells = Cells.sort(nothing, nothing, names, bucket_bounds(params.packing.min_bucket, target))
    apply_budgets(nothing, cells, params.packing)


def check_chunking(params: ChunkingParams) -> None:
    """UserError for a language, a spaCy pipeline or an embedding model that cannot be used."""
    from tasks.chunk.sentences import make_segmenter
    from tasks.chunk.similarity import TopicShift

    if params.strategy == "semantic":
        make_segmenter(params)
        if params.embedding_model:
            TopicShift(params.embedding_model)


def chunking_files(params: ChunkingParams) -> dict[str, str]:
    """Digests of files and packages that chunking depends on, by name; they become parents of the shards."""
    if params.strategy != "semantic":
        return {}
    parents = {}
    if params.embedding_model:
        parents["embedding_model"] = _folder_digest(Path(params.embedding_model).expanduser())
    if params.spacy_pipeline and (Path(params.spacy_pipeline).expanduser() / "config.cfg").is_file():
        parents["spacy_pipeline"] = _folder_digest(Path(params.spacy_pipeline).expanduser())
    elif params.spacy_pipeline:
        from importlib.metadata import version

        parents["spacy_pipeline"] = f"{params.spacy_pipeline} {version(params.spacy_pipeline)}"
    if params.segmenter == "spacy" or params.spacy_pipeline:
        from importlib.metadata import version

        parents["spacy"] = version("spacy")
    return parents


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()[:32]
