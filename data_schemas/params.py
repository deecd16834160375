"""What a user may set. The Prefect UI renders these models as its run form, so every field says what it means."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from data_schemas.closed import Params
from data_schemas.evaluation_params import EvaluationParams, RopeMethod
from data_schemas.publish_params import PublishParams

# Every format that documents come in. These match in upper and lower case; patterns that a user gives are case-sensitive.
DEFAULT_INCLUDE = tuple(
    f"**/*.{kind}" for kind in ("txt", "md", "markdown", "rst", "html", "htm", "xhtml", "jsonl", "ndjson", "parquet", "arrow")
)


class CorpusSource(Params):
    """Where documents come from and under which terms."""

    uri: str = Field(
        min_length=1,
        description="A file, a folder or a glob pattern, local or as an fsspec URI (s3, gs, http, zip, ...); `hf:NAME` for a "
        "Hugging Face data set, a hub id or a local folder; or `stdlib:` for the running Python's standard library.",
    )
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Name in reports and budgets; empty: taken from `uri`."
    )
    weight: float | None = Field(
        None, gt=0, description="Share of training tokens against the other sources' weights; empty everywhere: all there is."
    )
    max_repeats: int = Field(1, ge=1, description="How often, at most, a document is repeated to reach `weight`.")
    include: tuple[str, ...] = Field(
        DEFAULT_INCLUDE,
        min_length=1,
        description="Glob patterns, relative to a folder `uri`, of the files to read. A pattern also matches the same name "
        "with .gz or .zst behind it. The default patterns match in any case, yours as they are written.",
    )
    exclude: tuple[str, ...] = Field((), description="Glob patterns, relative to a folder `uri`, of files to leave out.")
    repository: Literal["no", "files", "whole"] = Field(
        "no",
        description="Read a folder of code: `files` makes one document a text file of any kind, `whole` one document a "
        "repository (each top-level folder of `uri`, or `uri` itself where it holds .git).",
    )
    text_field: str = Field("text", min_length=1, description="The field of a record (JSON line, table row) with the document.")
    dataset_config: str | None = Field(None, description="For `hf:`: the data set's configuration.")
    dataset_split: str = Field("train", min_length=1, description="For `hf:`: the data set's own split that is read.")
    dataset_revision: str | None = Field(None, description="For `hf:`: hub revision; a commit hash makes the run reproducible.")
    streaming: bool = Field(True, description="For `hf:`: stream instead of downloading the data set first.")
    licence: str = Field("unknown", min_length=1, description="SPDX name of the text's licence, kept with every document.")
    work_by: Literal["file", "top_level"] = Field(
        "file",
        description="What counts as one work for the held-out split: each file that is one document and each record of a file "
        "of records, or all below one top-level folder. A record's own `work` field goes first.",
    )
    min_bytes: int = Field(1, ge=1, description="Shorter documents are left out, and counted.")

    @property
    def label(self) -> str:
        """`name`, or a short name made from the last part of `uri`, without user names, passwords and queries."""
        if self.name:
            return self.name
        plain = re.sub(r"://[^/?#]*@", "://", self.uri.split("::")[0]).split("?")[0].rstrip("/").rstrip(":")
        last = re.split(r"[/:]", re.sub(r"/[^/]*[*?\[].*", "", plain))[-1]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:96] or "source"


def _as_source(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


class NearDuplicateParams(Params):
    """Removal of documents that are almost the same as another, by MinHash over word shingles."""

    model_config = ConfigDict(title="Near duplicates")

    enabled: bool = Field(True, description="Remove near-duplicates; exact duplicates are always removed.")
    similarity: float = Field(0.8, gt=0, le=1, description="Estimated Jaccard similarity from which a document is removed.")
    num_permutations: int = Field(128, ge=16, le=1024, description="Length of the MinHash signature.")
    shingle_words: int = Field(5, ge=1, le=64, description="Words in one shingle.")


class DecontaminationParams(Params):
    """Removal of training documents that contain what the model is evaluated on, by shared word n-grams."""

    enabled: bool = Field(
        True,
        description="Compare training documents with held-out documents, evaluation prompts, and each question, longer answer and "
        "gold passage of `evaluation.qa_file`; its other `passages` may come from the corpus.",
    )
    ngram_words: int = Field(13, ge=3, le=64, description="Length of an n-gram in words (13: as for GPT-3).")
    prompt_files: tuple[str, ...] = Field(
        (), description="Text or JSONL files of evaluation prompts; a training document that shares one n-gram is removed."
    )
    heldout_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="A training document goes when this share of its n-grams stands in held-out documents, or when it "
        "holds this share of one of them.",
    )
    common_documents: int = Field(
        10, ge=1, description="N-grams found in more training documents than this are boilerplate and do not count."
    )


class CorpusParams(Params):
    """What is read, and what is never trained on."""

    sources: tuple[Annotated[CorpusSource, BeforeValidator(_as_source, json_schema_input_type=str | CorpusSource)], ...] = (
        Field(min_length=1, description="Paths or URIs, or full source objects.")
    )
    heldout_fraction: float = Field(
        0.1, gt=0, lt=1, description="Expected share of works kept away from training, for validation and evaluation."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the split by work.")
    max_quarantined_fraction: float = Field(
        0.5, ge=0, le=1, description="The run stops when more than this share of the inputs is unreadable."
    )
    max_document_megabytes: float = Field(256, gt=0, le=1000, description="Longer documents and lines are quarantined.")
    max_expansion: float = Field(
        200, ge=2, description="A compressed file that grows by more than this factor is quarantined as a decompression bomb."
    )
    detect_language: bool = Field(False, description="Detect and record each document's language.")
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = Field(
        (), description="Keep documents in these languages only (ISO 639-1); empty: all. Turns detection on."
    )
    near_duplicates: NearDuplicateParams = Field(NearDuplicateParams(), description="Documents almost the same as another.")
    decontamination: DecontaminationParams = Field(
        DecontaminationParams(), description="Training documents that contain what is evaluated."
    )

    @model_validator(mode="after")
    def _sources_fit_together(self) -> CorpusParams:
        labels = [source.label for source in self.sources]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two sources are called {twice[0]!r}: give them a `name` each")
        weighted = sum(source.weight is not None for source in self.sources)
        if weighted not in (0, len(self.sources)):
            raise ValueError("some sources have a weight and some have none: give all of them one, or none")
        return self


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
    language: str = Field("en", pattern=r"^[a-z]{2,3}$", description="Language whose rules end a sentence.")
    segmenter: Literal["spacy", "fast"] = Field(
        "spacy", description="What finds sentences: spaCy with rules of ours, or a fast one without spaCy."
    )
    spacy_pipeline: str | None = Field(
        None, description="An installed trained spaCy pipeline, or the path of one, to find sentences with instead."
    )
    embedding_model: str | None = Field(
        None,
        description="For `semantic`: path of an embedding model; of sentence boundaries, the one between the least similar "
        "neighbours is taken.",
    )


class TokenBudget(Params):
    """How much of one source and length bucket is used."""

    source: str = Field("*", min_length=1, description="Name of a source; * for all.")
    bucket: int | None = Field(None, ge=1, description="Upper bound in tokens of a length bucket; empty for all.")
    max_tokens: int | None = Field(None, ge=0, description="Most tokens taken; empty: all.")
    repeats: int = Field(1, ge=0, description="How often each sequence is used.")


class PackingParams(Params):
    """How chunks become rows of equal length."""

    window_chunks: int = Field(200_000, ge=1, description="Chunks considered together by best-fit decreasing.")
    min_bucket: int = Field(128, ge=1, description="Upper bound in tokens of the shortest length bucket.")
    bucket_token_budgets: dict[int, int] = Field(
        default_factory=dict, description="Most tokens taken from a length bucket, keyed by its upper bound in tokens."
    )
    bucket_repeats: dict[int, int] = Field(
        default_factory=dict, description="How often each chunk of a length bucket is used, keyed by its upper bound."
    )
    budgets: tuple[TokenBudget, ...] = Field(
        (), description="Budgets and repeats by source and bucket; the last one that matches a sequence decides."
    )
    recipe: Literal["none", "long_context_mix"] = Field(
        "none", description="long_context_mix: `long_share` of the tokens from long documents, the rest from short ones."
    )
    long_share: float = Field(0.6, gt=0, lt=1, description="For long_context_mix: share of tokens from long documents.")
    long_from: int | None = Field(
        None, ge=1, description="For long_context_mix: tokens from which a document is long; empty: half the target length."
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
    serve_with: tuple[Literal["transformers>=5", "transformers-4.57", "vllm"], ...] = Field(
        (), description="Programs that must compute the extended positions as meant; a method that one misreads is refused."
    )


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
    balance_steps: int = Field(
        1,
        ge=1,
        description="Rows whose attention costs the same meet in a step, within windows of so many steps, so that no "
        "worker waits; 1: rows in random order, dealt to workers by cost.",
    )
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
    activation_offload: bool = Field(
        False, description="Keep the activations between layers in the CPU's memory; needs gradient_checkpointing."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw: fused AdamW; adamw_8bit: its states in 8 bits (needs the package bitsandbytes and a GPU)."
    )
    parallelism: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: a whole model on every worker; fsdp: weights, gradients and states cut over the workers (FSDP2).",
    )
    loss_kernel: Literal["auto", "torch", "liger", "chunked"] = Field(
        "auto",
        description="What computes the loss in linear memory; auto takes the fastest one present that trains what is asked.",
    )
    loss_chunk_tokens: int = Field(2048, ge=16, description="Logits are computed for this many tokens at a time.")
    validate_every: int = Field(100, ge=1, description="Steps between validations on full attention.")
    validation_rows: int = Field(8, ge=1, description="Held-out rows in one validation.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    seed: int = Field(0, ge=0, description="Seed of initialisation and reading order.")


class RayParams(Params):
    """Where the heavy work runs."""

    address: str = Field(
        "local",
        min_length=1,
        description="`local`: this machine; http://HOST:8265: submit to that cluster's dashboard; `auto` or HOST:6379: connect to "
        "a cluster that this machine is a node of.",
    )
    num_workers: int = Field(1, ge=1, description="Training workers.")
    min_workers: int | None = Field(
        None, ge=1, description="Elastic training: go on with as few workers as this when others are lost; empty: fixed."
    )
    use_gpu: bool = Field(False, description="One GPU for each worker; otherwise CPU workers.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved for each worker.")
    peak_tflops: float | None = Field(
        None, gt=0, description="TFLOP/s that one worker's device can do, to report MFU; empty: by the GPU's name, in bf16."
    )
    data_workers: int | None = Field(
        None, ge=1, description="Workers of the data stage; empty: one a CPU. The shards do not depend on it."
    )
    working_dir: str | None = Field(
        None,
        min_length=1,
        description="For a submitted job: folder with Ropeway's code to upload; empty: Ropeway is installed on the cluster.",
    )
    env_vars: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field(
        (),
        description="For a submitted job: names of environment variables handed over to it, such as AWS_SECRET_ACCESS_KEY; the "
        "values are taken where the run is.",
    )

    @model_validator(mode="after")
    def _can_be_used(self) -> RayParams:
        if "@" in self.address:
            raise ValueError("ray.address contains credentials: leave them out, and give the cluster's token as RAY_AUTH_TOKEN")
        if self.address.startswith("ray://"):
            raise ValueError(
                f"ray.address {self.address} is Ray Client, which cannot run Ray Train: "
                "give the cluster's dashboard, http://HOST:8265, to submit there"
            )
        return self


class PipelineParams(Params):
    """One run of the whole chain."""

    run_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Name of the run, and of its release unless that has one."
    )
    storage: str = Field("ropeway-storage", min_length=1, description="Storage root: a local folder or an s3:// URI.")
    model: ModelParams
    corpus: CorpusParams
    chunking: ChunkingParams = ChunkingParams()
    packing: PackingParams = PackingParams()
    training: TrainingParams = TrainingParams()
    evaluation: EvaluationParams = EvaluationParams()
    publish: PublishParams = PublishParams()
    ray: RayParams = RayParams()

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineParams:
        target = self.model.target_length
        labels = [source.label for source in self.corpus.sources]
        for i, budget in enumerate(self.packing.budgets):
            if budget.source not in ("*", *labels):
                raise ValueError(f"packing.budgets[{i}] names a source {budget.source!r}: the sources are {', '.join(labels)}")
        group = self.training.s2_group_size
        if group is not None and group > target:
            raise ValueError(f"training.s2_group_size is {group}, above model.target_length {target}: choose at most {target}")
        if self.chunking.max_tokens is not None and self.chunking.max_tokens > target:
            raise ValueError(
                f"chunking.max_tokens is {self.chunking.max_tokens}, above model.target_length {target}: "
                "a chunk must fit a row, so lower it or leave it empty"
            )
        if self.training.optimizer == "adamw_8bit" and (self.training.parallelism == "fsdp" or not self.ray.use_gpu):
            why = (
                "cannot be cut over workers: set training.parallelism to ddp"
                if self.ray.use_gpu
                else "needs a GPU: set ray.use_gpu"
            )
            raise ValueError(f"training.optimizer adamw_8bit {why}, or choose adamw")
        if self.training.activation_offload and not self.training.gradient_checkpointing:
            raise ValueError(
                "training.activation_offload needs training.gradient_checkpointing: set it too, or leave offloading"
            )
        if self.ray.min_workers is not None and self.ray.min_workers > self.ray.num_workers:
            raise ValueError(
                f"ray.min_workers is {self.ray.min_workers}, above ray.num_workers {self.ray.num_workers}: "
                "give at most that, or leave it empty"
            )
        per_pass = self.ray.num_workers * self.training.micro_batch_rows
        if self.training.rows_per_step % per_pass:
            raise ValueError(
                f"training.rows_per_step is {self.training.rows_per_step}, not a multiple of ray.num_workers x "
                f"training.micro_batch_rows = {per_pass}: choose {per_pass * max(1, self.training.rows_per_step // per_pass)}"
            )
        too_long = [n for n in (*(self.evaluation.lengths or ()), *(self.evaluation.task_lengths or ())) if n > target]
        if too_long:
            raise ValueError(f"evaluation length {too_long[0]} is above model.target_length {target}: leave it out")
        if self.model.rope_method == "longrope" and not self.model.rope_factors_file:
            raise ValueError("model.rope_method longrope needs model.rope_factors_file: give one, or choose yarn")
        if self.model.rope_factors_file and not {"longrope", "auto"} & {self.model.rope_method, *self.evaluation.rope_methods}:
            raise ValueError(
                f"model.rope_factors_file is for longrope and model.rope_method is {self.model.rope_method}: leave the file out, "
                "choose longrope, or add it to evaluation.rope_methods to compare the two"
            )
        return self

    @property
    def release_name(self) -> str:
        return self.publish.name or self.run_name

    @property
    def chunk_tokens(self) -> int:
        return self.chunking.max_tokens or self.model.target_length
