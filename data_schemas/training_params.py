"""Parameters of LongLoRA fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from data_schemas.closed import Params
from data_schemas.stage_params import StageParams

_EMBEDDINGS_BEFORE = {True: "both", False: "none"}  # what the parameter was until November 2026
# Runs and schedules that were written then keep working.
TrainedEmbeddings = Annotated[
    Literal["input", "both", "none"],
    BeforeValidator(
        lambda given: _EMBEDDINGS_BEFORE[given] if isinstance(given, bool) else given,
        json_schema_input_type=Literal["input", "both", "none", True, False],
    ),
]


class TrainingParams(Params):
    """LongLoRA fine-tuning."""

    ADDED: ClassVar[frozenset[str]] = frozenset(
        {
            "base_precision",
            "dora",
            "rslora",
            "average_last_steps",
            "hidden_states",
            "compile_layers",
            "kept_layers",
            "mlp_tile_tokens",
            "full_attention_heads",
            "stages",
            "short_window_share",
            "find_short_factors",
            "attention_outputs",
            "norm_kernel",
        }
    )

    attention: Literal["s2", "full"] = Field(
        "s2",
        description="Attention in training. s2: shifted sparse attention (S²-Attn). full: full attention. Evaluation always uses "
        "full attention.",
    )
    s2_group_size: int | None = Field(None, ge=2, description="Tokens in a group of S²-Attn. Empty: a quarter of a row.")
    full_attention_layers: Literal["none", "auto"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        "auto",
        description="With S²-Attn: layers that use full attention, as a list of layer numbers from 0. auto: a quarter of the layers "
        "that can be in groups, at least one: those that copy most from far away, by a probe of the base. none: no layer.",
    )
    full_attention_heads: (
        Literal["none", "auto"] | tuple[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], ...]
    ) = Field(
        "none",
        description="With S²-Attn, instead of `full_attention_layers`: key-value heads that use full attention together with their query "
        "heads, as a list of [layer, head], both counted from 0. auto: a quarter of the key-value heads of layers that can be in groups, "
        "at least one: those that copy most from far away, by a probe of the base. none: layers are chosen.",
    )
    full_attention_every: int = Field(
        0,
        ge=0,
        description="With S²-Attn, instead of `full_attention_layers`: use full attention in every k-th layer, for example 4: layers 3, "
        "7, 11, … 0: off.",
    )
    full_attention_steps: int = Field(
        0, ge=0, description="With S²-Attn: number of steps at the end of training that use full attention."
    )
    s2_executor: Literal["auto", "flash_attn", "torch_varlen", "sdpa", "flash_attn_3"] = Field(
        "auto",
        description="Kernel that computes attention in training, S²-Attn and full. auto: the fastest one available of flash_attn, "
        "torch_varlen and sdpa. flash_attn_3, for Hopper GPUs, must be named: it has not been tried yet.",
    )
    steps: int = Field(1000, ge=1, description="Number of optimizer steps.")
    stages: tuple[StageParams, ...] = Field(
        (),
        description="Train in several stages, each from the weights of the one before (progressive extension): at growing lengths, or with "
        "other retrieval documents. "
        "Empty: in one stage at `model.target_length`.",
    )
    rows_per_step: int = Field(
        8, ge=1, description="Rows in one optimizer step, over all workers. A row has `packing.row_length` tokens."
    )
    balance_steps: int = Field(
        1,
        ge=1,
        description="Put rows of similar attention cost in the same step, within windows of this many steps, so that workers wait "
        "less for each other. 1: random order.",
    )
    micro_batch_rows: int = Field(1, ge=1, description="Rows in one forward pass of one worker.")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate of the LoRA weights.")
    full_weight_learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak learning rate of norms and embeddings. Empty: a tenth of `learning_rate`."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate changes after warm-up."
    )
    warmup_steps: int = Field(20, ge=0, description="Number of steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW weight decay of the LoRA weights.")
    max_grad_norm: float = Field(1.0, gt=0, description="Clip gradients to this norm.")
    lora_rank: int = Field(16, ge=1, le=1024, description="Rank of the LoRA update.")
    lora_alpha: int = Field(
        32, ge=1, description="LoRA scale: the update is multiplied by alpha / rank, or with `rslora` by alpha / √rank."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the LoRA update.")
    rslora: bool = Field(
        False,
        description="Rank-stabilised LoRA: the update is multiplied by alpha / √rank, so that a high rank still learns fast.",
    )
    dora: bool = Field(
        False,
        description="DoRA: train the length of each output channel's weight apart from its direction, which LoRA updates. A step "
        "takes longer. The merged model has no extra weights.",
    )
    lora_targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        min_length=1,
        description="Names of the layers that get LoRA, such as `gate_proj`, or `experts.gate_proj` for the experts of a layer. "
        "`all-linear`: all linear layers but the output layer and the routers of experts.",
    )
    train_norms: bool = Field(True, description="Also train the norm weights, as LongLoRA does.")
    train_embeddings: TrainedEmbeddings = Field(
        "both",
        description="Also train embeddings in full. both: of the input and of the output (the head). input: of the input alone, as "
        "LongLoRA does; the same as both where the two are tied. none: neither. Runs of before say true for both and false for none.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="Precision of the computation (autocast). Trained weights stay float32. auto: bf16 where the device has "
        "instructions for it, else fp32. A run records which one it was.",
    )
    base_precision: Literal["full", "int8", "nf4", "fp8"] = Field(
        "full",
        description="How the frozen weights of linear layers are held in training. full: as loaded. int8: 8 bits a weight. nf4: 4 bits "
        "(QLoRA). Both need the package bitsandbytes. fp8: 8-bit floats, multiplied as such, which needs a recent GPU; not tried on "
        "one yet. The adapter is merged into the original weights, and the evaluation measures what this costs.",
    )
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass to save memory.")
    activation_offload: bool = Field(
        False, description="Keep the activations between layers in CPU memory. Needs `gradient_checkpointing`."
    )
    mlp_tile_tokens: int | None = Field(
        None,
        ge=16,
        description="Compute each layer's MLP on this many tokens at a time, so that its memory does not grow with the row; such as 4096 "
        "for rows of 100,000 tokens and more. It costs one more forward pass of the MLPs. Empty: all at once.",
    )
    kept_layers: int = Field(
        0,
        ge=0,
        description="With `gradient_checkpointing`: keep the activations of this many layers instead of recomputing them, where memory "
        "is left. `ropeway plan` says how many fit.",
    )
    attention_outputs: Literal["auto", "kept", "recomputed"] = Field(
        "auto",
        description="With `gradient_checkpointing`: kept: keep each layer's output of attention, so that attention is not computed "
        "again. It takes as much memory as the layers' inputs. recomputed: compute it again with the rest of the layer. auto: kept "
        "where the memory of the worker is enough and the base has no dropout in attention. The results are the same.",
    )
    hidden_states: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="With `precision` bf16: type of the values between layers. fp32: that of the trained embeddings and norms. bf16: "
        "moves fewer bytes. Weights stay float32. Refused with `precision` fp32; where `precision` auto becomes fp32, this does too. "
        "Not tried on a GPU yet.",
    )
    norm_kernel: Literal["torch", "liger"] = Field(
        "torch",
        description="Kernel of RMS norms. torch: the model's own code. liger: Liger's fused kernel, which needs a GPU and the package "
        "liger_kernel. Not tried on a GPU yet.",
    )
    compile_layers: bool = Field(
        False, description="Compile each layer with torch.compile into fewer kernels. Not tried on a GPU yet."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw",
        description="adamw: fused AdamW. adamw_8bit: AdamW with 8-bit states, which needs the package bitsandbytes and a GPU.",
    )
    parallelism: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: a whole model on each worker. fsdp: weights, gradients and optimizer states split over the workers "
        "(FSDP2).",
    )
    loss_kernel: Literal["auto", "torch", "liger", "chunked"] = Field(
        "auto",
        description="Kernel that computes the loss without holding all logits. auto: the fastest one available that supports this "
        "training.",
    )
    loss_weighting: Literal["none", "exact", "long_ce"] = Field(
        "none",
        description="How much each target token counts in the training loss. none: all the same. exact: more with a long left context "
        "in their document, by its rarity (EXACT). long_ce: more where the model predicts better with the whole context than with a "
        "short one (LongCE), which needs a second forward pass. Validation does not use it: all count the same, or with instruction data "
        "the answers alone.",
    )
    loss_long_from: int | None = Field(
        None,
        ge=2,
        description="Left context in tokens from which `loss_weighting` changes a target's weight. It is also the longest short context "
        "of long_ce. Empty: the base's window.",
    )
    loss_extra_mass: float = Field(
        0.5,
        gt=0,
        le=10,
        description="For `loss_weighting` exact: the weight that is added in total, as a share of all targets.",
    )
    loss_max_weight: float | None = Field(
        None,
        gt=1,
        le=1000,
        description="Largest weight of a target under `loss_weighting`, its own weight from the shards included, unless that alone is "
        "larger. Empty: 16 for exact, 5 for long_ce.",
    )
    position_skipping: int = Field(
        0,
        ge=0,
        le=64,
        description="Cut each document in training at random into up to this many parts, and skip positions between them, so that short "
        "rows train positions up to `model.target_length` (PoSE). 0 or 1: no position is skipped. Use it with `packing.row_length`.",
    )
    short_window_share: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of the ordinary training rows whose documents are cut into pieces of at most the base's window, so that short "
        "prompts are kept (mixed windows of LongRoPE2). They rotate as the released model does in short prompts: with longrope's "
        "`short_factor` where that is another list, else like all rows. 0: none.",
    )
    find_short_factors: bool = Field(
        False,
        description="With longrope's two lists: after training, measure lists for short prompts between the short and the long one, and "
        "publish the best if it beats the trained one on other training documents. `rope_search.samples` and `deciding_samples` say on "
        "how many.",
    )
    loss_chunk_tokens: int = Field(2048, ge=16, description="Number of tokens whose logits are computed at a time.")
    validate_every: int = Field(100, ge=1, description="Number of steps between validations, which use full attention.")
    validation_rows: int = Field(8, ge=1, description="Number of held-out rows in one validation.")
    average_last_steps: int = Field(
        0,
        ge=0,
        description="Publish the mean of the trained weights after each of this many last steps, instead of the weights after the last "
        "one. 0: off.",
    )
    checkpoint_every: int = Field(100, ge=1, description="Number of steps between checkpoints.")
    seed: int = Field(0, ge=0, description="Seed of the initialisation and of the reading order.")

    def recorded(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """See `Params.recorded`; trained embeddings as they were recorded before, so that those runs keep their digests."""
        values = super().recorded(exclude=exclude)
        if "stages" in values:
            values["stages"] = [stage.recorded() for stage in self.stages]
        before = {name: given for given, name in _EMBEDDINGS_BEFORE.items()}
        return {k: before.get(v, v) if k == "train_embeddings" else v for k, v in values.items()}

    @property
    def all_steps_in_full(self) -> bool:
        """Whether no step of training is in groups."""
        return self.attention == "full" or self.full_attention_steps >= self.steps

    @property
    def warm_up_note(self) -> str:
        """Says so where warm-up takes all steps. Empty: it does not."""
        never = "training.warmup_steps is not below training.steps, so the learning rate never reaches its peak"
        return never if self.warmup_steps >= self.steps else ""

    @property
    def probes_layers(self) -> bool:
        """Whether a probe of the base chooses the layers in full attention."""
        is_default = self.full_attention_layers == "auto" and not self.full_attention_every
        return self.attention == "s2" and is_default and self.full_attention_heads in ("none", ())

    @property
    def probes_heads(self) -> bool:
        """Whether a probe of the base chooses the heads in full attention."""
        return self.attention == "s2" and self.full_attention_heads == "auto"

    @field_validator("full_attention_heads", mode="before")
    @classmethod
    def _names_heads(cls, given: Any) -> Any:
        is_list = isinstance(given, (list, tuple)) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(i) is int and i >= 0 for i in pair)
            for pair in given
        )
        if not is_list and given not in ("none", "auto"):
            raise ValueError(f"give none, auto or a list of [layer, head] such as [[3, 0]], not {given!r}")
        return given

    @field_validator("full_attention_layers", mode="before")
    @classmethod
    def _names_layers(cls, given: Any) -> Any:
        is_list = isinstance(given, (list, tuple)) and all(type(layer) is int and layer >= 0 for layer in given)
        if not is_list and given not in ("none", "auto"):
            raise ValueError(f"give none, auto or a list of layer numbers from 0 such as [3], not {given!r}")
        return given
