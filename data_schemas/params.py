"""What a user may set. The Prefect UI renders these models as its run form, so every field says what it means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

RopeMethod = Literal["auto", "linear", "dynamic", "ntk", "yarn", "longrope", "llama3"]
ReorderStrategy = Literal["important_first_last", "reverse_rank", "calibrated", "none"]


class Params(BaseModel):
    """Frozen, closed to unknown names; field docstrings stand in `description`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class CorpusSource(Params):
    """Where documents come from and under which terms."""

    uri: str = Field(
        min_length=1,
        description="A file, a folder or a glob pattern; or `stdlib:` for the running Python's standard library.",
    )
    include: tuple[str, ...] = Field(
        ("**/*.txt", "**/*.md", "**/*.jsonl"),
        min_length=1,
        description="Glob patterns, relative to a folder `uri`, of the files to read.",
    )
    exclude: tuple[str, ...] = Field((), description="Glob patterns, relative to a folder `uri`, of files to leave out.")
    text_field: str = Field("text", min_length=1, description="The field of a JSON line that holds the document.")
    licence: str = Field("unknown", min_length=1, description="SPDX name of the text's licence, kept with every document.")
    work_by: Literal["file", "top_level"] = Field(
        "file",
        description="What counts as one work for the held-out split: each file, or all below one top-level folder. "
        "A JSON line's own `work` field goes first.",
    )
    min_bytes: int = Field(1, ge=1, description="Shorter documents are left out, and counted.")


def _as_source(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


class CorpusParams(Params):
    """What is read, and what is never trained on."""

    sources: tuple[Annotated[CorpusSource, BeforeValidator(_as_source)], ...] = Field(
        min_length=1, description="Paths or URIs, or full source objects."
    )
    heldout_fraction: float = Field(
        0.1, gt=0, lt=1, description="Expected share of works kept away from training, for validation and evaluation."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the split by work.")
    max_quarantined_fraction: float = Field(
        0.5, ge=0, le=1, description="The run stops when more than this share of the inputs is unreadable."
    )


class ChunkingParams(Params):
    """How a document is cut when it does not fit."""

    strategy: Literal["fixed", "overlap", "semantic"] = Field(
        "semantic",
        description="fixed: token windows; overlap: token windows that share tokens; "
        "semantic: at the strongest of heading, paragraph and sentence that keeps the budget.",
    )
    max_tokens: int | None = Field(None, ge=16, description="Budget of a chunk in tokens; empty: the target length.")
    overlap_fraction: float = Field(
        0.15, ge=0, lt=1, description="For `overlap`: share of a window repeated in the next; 0.10-0.30 is usual."
    )
    language: str = Field("en", pattern=r"^[a-z]{2,3}$", description="Language of the blank spaCy pipeline.")
    spacy_pipeline: str | None = Field(
        None, description="An installed spaCy pipeline to find sentences with, instead of the blank one."
    )


class PackingParams(Params):
    """How chunks become rows of equal length."""

    window_chunks: int = Field(10_000, ge=1, description="Chunks considered together by best-fit decreasing.")
    min_bucket: int = Field(128, ge=1, description="Upper bound in tokens of the shortest length bucket.")
    bucket_token_budgets: dict[int, int] = Field(
        default_factory=dict, description="Most tokens taken from a length bucket, keyed by its upper bound in tokens."
    )
    bucket_repeats: dict[int, int] = Field(
        default_factory=dict, description="How often each chunk of a length bucket is used, keyed by its upper bound."
    )
    shard_megabytes: float = Field(256, gt=0, le=4096, description="Size of one Arrow shard.")
    seed: int = Field(0, ge=0, description="Seed of bucket sampling and row order.")


class ModelParams(Params):
    """The base model and how far it is stretched."""

    base: str = Field(min_length=1, description="A model directory, a hub id, or `demo` for the shipped demo base.")
    revision: str | None = Field(None, description="Hub revision; a commit hash makes the run reproducible.")
    gguf_file: str | None = Field(None, description="Name of a GGUF file inside `base` to take the weights from.")
    licence: str | None = Field(None, description="SPDX name of the base's licence, if its card does not say.")
    target_length: int = Field(ge=32, le=16_777_216, description="Context length to reach, in tokens.")
    rope_method: RopeMethod = Field("auto", description="How rotary frequencies are scaled; `auto` chooses and says why.")
    rope_factors_file: str | None = Field(None, description="For longrope: a JSON file with `short_factor` and `long_factor`.")


class TrainingParams(Params):
    """LongLoRA fine-tuning."""

    attention: Literal["s2", "full"] = Field("s2", description="Attention while training; evaluation is always full.")
    s2_group_size: int | None = Field(None, ge=2, description="Group size of shifted sparse attention; empty: target / 4.")
    full_attention_steps: int = Field(0, ge=0, description="How many of the last steps train with full attention instead.")
    s2_executor: Literal["auto", "flash_attn", "torch_varlen", "sdpa"] = Field(
        "auto", description="Kernel that computes the segments; auto takes the fastest one present."
    )
    steps: int = Field(1000, ge=1, description="Optimizer steps.")
    rows_per_step: int = Field(8, ge=1, description="Rows of the target length in one optimizer step, over all workers.")
    micro_batch_rows: int = Field(1, ge=1, description="Rows in one forward pass of one worker.")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate of the LoRA weights.")
    full_weight_learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak learning rate of norms and embeddings; empty: a tenth of `learning_rate`."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Learning rate after warm-up.")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW weight decay of the LoRA weights.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    lora_rank: int = Field(16, ge=1, le=1024, description="Rank of the LoRA update.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale; the update is multiplied by alpha / rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in front of the LoRA update.")
    lora_targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        min_length=1,
        description="Projections that get LoRA, by name; or `all-linear`.",
    )
    train_norms: bool = Field(True, description="Train the norm weights (LongLoRA does).")
    train_embeddings: bool = Field(True, description="Train the embeddings (LongLoRA does).")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Autocast precision; trained weights stay float32.")
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass to save memory.")
    loss_chunk_tokens: int = Field(2048, ge=16, description="Logits are computed for this many tokens at a time.")
    validate_every: int = Field(100, ge=1, description="Steps between validations on full attention.")
    validation_rows: int = Field(8, ge=1, description="Held-out rows in one validation.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    seed: int = Field(0, ge=0, description="Seed of initialisation and reading order.")


class EvaluationParams(Params):
    """What is measured, on base, scaling-only and fine-tuned alike."""

    lengths: tuple[int, ...] | None = Field(
        None, description="Context lengths in tokens; empty: half the base's window, doubling up to the target."
    )
    target_tokens: int = Field(128, ge=8, description="Last tokens of each held-out document that perplexity is taken on.")
    num_documents: int = Field(64, ge=2, description="Held-out documents, at most.")
    passkey_lengths: tuple[int, ...] | None = Field(
        None, description="Context lengths of the passkey grid; empty: as `lengths`."
    )
    passkey_depths: int = Field(5, ge=2, le=101, description="Evenly spaced needle depths from 0 to 1.")
    passkey_samples: int = Field(8, ge=1, description="Prompts for each length and depth.")
    arms: tuple[Literal["base", "scaling_only", "fine_tuned"], ...] = Field(
        ("base", "scaling_only", "fine_tuned"), min_length=1, description="Models that are compared."
    )
    batch_tokens: int = Field(8192, ge=64, description="Tokens in one forward pass.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    seed: int = Field(0, ge=0, description="Seed of prompts and of the bootstrap.")


class PublishParams(Params):
    """What leaves the house, and under which conditions."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Release name; empty: the run's name."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Type of the published weights.")
    reorder_strategy: ReorderStrategy = Field("important_first_last", description="Default strategy of the reorder config.")
    max_short_context_loss: float | None = Field(
        None, gt=0, description="Publish only if perplexity at the base's window rose by less than this share."
    )
    min_long_context_gain: float | None = Field(
        None, ge=0, lt=1, description="Publish only if perplexity at the target fell by at least this share against the base."
    )


class RayParams(Params):
    """Where the heavy work runs."""

    address: str = Field("local", min_length=1, description="`local`, or a cluster's address.")
    num_workers: int = Field(1, ge=1, description="Training workers.")
    use_gpu: bool = Field(False, description="One GPU for each worker; otherwise CPU workers.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved for each worker.")


class PipelineParams(Params):
    """One run of the whole chain."""

    run_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Name of the run, and of its release unless that has one."
    )
    storage: str = Field("ropeway-storage", min_length=1, description="Storage root: a local folder.")
    corpus: CorpusParams
    chunking: ChunkingParams = ChunkingParams()
    packing: PackingParams = PackingParams()
    model: ModelParams
    training: TrainingParams = TrainingParams()
    evaluation: EvaluationParams = EvaluationParams()
    publish: PublishParams = PublishParams()
    ray: RayParams = RayParams()

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineParams:
        target = self.model.target_length
        group = self.training.s2_group_size
        if group is not None and group > target:
            raise ValueError(f"training.s2_group_size is {group}, above model.target_length {target}: choose at most {target}")
        if self.chunking.max_tokens is not None and self.chunking.max_tokens > target:
            raise ValueError(
                f"chunking.max_tokens is {self.chunking.max_tokens}, above model.target_length {target}: "
                "a chunk must fit a row, so lower it or leave it empty"
            )
        per_pass = self.ray.num_workers * self.training.micro_batch_rows
        if self.training.rows_per_step % per_pass:
            raise ValueError(
                f"training.rows_per_step is {self.training.rows_per_step}, not a multiple of ray.num_workers x "
                f"training.micro_batch_rows = {per_pass}: choose {per_pass * max(1, self.training.rows_per_step // per_pass)}"
            )
        too_long = [n for n in (*(self.evaluation.lengths or ()), *(self.evaluation.passkey_lengths or ())) if n > target]
        if too_long:
            raise ValueError(f"evaluation length {too_long[0]} is above model.target_length {target}: leave it out")
        if self.model.rope_method == "longrope" and not self.model.rope_factors_file:
            raise ValueError("model.rope_method longrope needs model.rope_factors_file: give one, or choose yarn")
        return self

    @property
    def release_name(self) -> str:
        return self.publish.name or self.run_name

    @property
    def chunk_tokens(self) -> int:
        return self.chunking.max_tokens or self.model.target_length
