"""Parameters of chunking: how a document that does not fit is cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_schemas.closed import Params


class ChunkingParams(Params):
    """How a document is cut when it does not fit."""

    strategy: Literal["fixed", "overlap", "semantic"] = Field(
        "semantic",
        description="Where documents are cut. fixed: every `max_tokens` tokens. overlap: the same, with tokens shared between "
        "neighbours. semantic: at the strongest boundary near the end of `max_tokens`: a heading, else a block such as a paragraph or "
        "a table, else a line, else a sentence.",
    )
    max_tokens: int | None = Field(None, ge=16, description="Largest size of a chunk in tokens. Empty: `model.target_length`.")
    min_fill: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="For `semantic`: a boundary is sought behind this share of `max_tokens` first. Higher: fuller chunks. Lower: more "
        "chunks end at a heading. 0: the strongest boundary anywhere.",
    )
    overlap_fraction: float = Field(
        0.15, ge=0, lt=1, description="For `overlap`: share of a chunk repeated in the next. 0.10 to 0.30 is usual."
    )
    language: str = Field(
        "en",
        pattern=r"^[a-z]{2,3}$",
        description="Language whose rules decide where a sentence ends, for documents whose language is not known.",
    )
    segmenter: Literal["spacy", "fast"] = Field(
        "spacy", description="What finds sentences: spaCy with Ropeway's rules, or a faster segmenter without spaCy."
    )
    spacy_pipeline: str | None = Field(
        None,
        description="Name or path of a trained spaCy pipeline that finds sentences instead of `segmenter`. Empty: none.",
    )
    embedding_model: str | None = Field(
        None,
        description="For `semantic`: path of an embedding model. Among sentence boundaries, it picks the one whose neighbours are "
        "least similar. Empty: none.",
    )
