"""Parameters of packing: how chunks become training rows."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from data_schemas.closed import Params

LongConversations = Literal["quarantine", "cut_context"]


class TokenBudget(Params):
    """How much of one source and length bucket is used. A chunk is in the bucket of its whole document."""

    source: str = Field("*", min_length=1, description="Name of a source. *: all sources.")
    bucket: int | None = Field(
        None,
        ge=1,
        description="Length bucket of documents, by its upper bound in tokens. The last one also has all longer documents. Empty: all "
        "buckets.",
    )
    max_tokens: int | None = Field(None, ge=0, description="Largest number of tokens used. Empty: all.")
    repeats: int = Field(1, ge=0, description="How often each chunk is used. 0: never.")


class PackingParams(Params):
    """How chunks become rows of equal length."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"long_conversations", "full_attention_conversations"})

    row_length: int | None = Field(
        None,
        ge=32,
        description="Tokens in a full row. Longer documents are cut. With `training.position_skipping`, rows shorter than the target still "
        "train its positions. Empty: `model.target_length`.",
    )
    window_chunks: int = Field(200_000, ge=1, description="Number of chunks that best-fit decreasing packs at a time.")
    min_bucket: int = Field(
        128,
        ge=1,
        description="Upper bound in tokens of the bucket of the shortest documents. Each further bucket's is twice as large, up to "
        "`model.target_length`.",
    )
    max_waste: float = Field(
        0.01,
        ge=0,
        le=1,
        description="For `chunking.strategy` semantic: if more than this share of the places in rows would be empty, some pieces of long "
        "documents are cut again into short ones that fill them. 1: never.",
    )
    bucket_token_budgets: dict[int, int] = Field(
        default_factory=dict,
        description="Largest number of tokens used from a length bucket, by the bucket's upper bound in tokens.",
    )
    bucket_repeats: dict[int, int] = Field(
        default_factory=dict,
        description="How often each chunk of a length bucket is used, by the bucket's upper bound in tokens.",
    )
    budgets: tuple[TokenBudget, ...] = Field(
        (), description="Token budgets and repeats by source and length bucket. If several match a chunk, the last one applies."
    )
    recipe: Literal["none", "long_context_mix"] = Field(
        "none",
        description="long_context_mix: take `long_share` of the tokens from long documents, the rest from short ones. none: take "
        "all lengths as they come.",
    )
    long_share: float = Field(
        0.6, gt=0, lt=1, description="For long_context_mix: share of the tokens that come from long documents."
    )
    long_from: int | None = Field(
        None,
        ge=2,
        description="For long_context_mix: a document with at least this many tokens is long, with all its pieces. Empty: half of "
        "`model.target_length`.",
    )
    warn_dropped_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Warn if budgets, weights and recipe leave out more than this share of the training tokens.",
    )
    long_conversations: LongConversations = Field(
        "quarantine",
        description="For instruction data: what happens to a conversation longer than a row, as none is cut into pieces. quarantine: "
        "leave it out. cut_context: leave out the end of the document in its `context_field`, so that question and answer fit.",
    )
    full_attention_conversations: bool = Field(
        False,
        description="With S²-Attn: let the conversations of instruction data attend in full, since an answer may need what stands outside "
        "its group.",
    )
    shard_megabytes: float = Field(256, gt=0, le=4096, description="Size of one Arrow shard in MB.")
    seed: int = Field(0, ge=0, description="Seed of the sampling from buckets and of the row order.")
