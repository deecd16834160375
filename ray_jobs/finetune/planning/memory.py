"""Peak memory of a training step, predicted by a formula.

Letters: T tokens in a micro batch, L layers, E hidden, Q query and K key-value channels (heads x head dimension), H heads, F MLP
channels, V vocabulary, r LoRA rank, s bytes of a hidden state between layers, c bytes in matrix products, P_t trained and
P_f frozen weights of f bytes, of which P_q are held in q bytes, M weights of the largest matrix, C tokens in a chunk of the loss.

Always there
    weights     4 P_t + f (P_f - P_q)   trained weights are float32; peft keeps the frozen original of a trained embedding
                + q P_q                 `training.base_precision` nf4 or int8
    average     4 P_t                   with `training.average_last_steps`
    gradients   4 P_t                   kept from step to step
    optimizer   8 P_t                   AdamW's two moments in float32 (2 P_t in 8 bits)

Kept for the backward pass
    between     T L E s                 the input of every layer
    attention   T (Q c + 4 H)           with `training.attention_outputs` kept: output and log-sum-exp, for every recomputed layer
    tables      2 T D s                 sines and cosines of RoPE, of D channels
    inside      T [ E s                 input of the second norm (that of the first is the layer's)
                  + 2 E s               both norms' normalised values, where norms train
                  + 2 (Q + K) s         norms of queries and keys, where the base has them and norms train; else half of it
                  + LoRA inputs         E s for all that read one input; under autocast E c for each, because each casts it
                  + (2 Q + 2 K) c + 4 H queries, keys, values, output and log-sum-exp of attention
                  + 3 F c               gate, activated gate and up projection of the MLP; of experts, F of all that a token uses
                  + k (E c + 32)        output of each of the k experts that a token uses, before it is weighted, and its places
                  + n r c               the values between LoRA's two factors
                  + 2 O c ]             DoRA: both parts of each projection's output, of O channels together
                + 4 P_e                 experts' weights of a layer with their LoRA update, where experts get one
                + c P_layer             a layer's frozen weights as cast by autocast, if they are stored wider and not quantised
                for one layer with gradient checkpointing (recomputed in its turn) and for `kept_layers`, for all L without
    backward    T (3 F c + 2 E s)       gradients at the MLP's product, in the current layer
                + (c + 4) M             the one matrix that is restored at a time, where weights are quantised
                + 12 P_e                these experts' update, sum and its gradient
                + 12 M                  DoRA: a weight with its update, whose length is computed
Loss
    head        3 T E s                 the final norm's input, its normalised values and output
    gradients   T E s + 4 V E           of the hidden states and, if it trains, of the output layer
    logits      4 C V + max(4 C V, 4 V E)   logits and their softmax, or the output layer's gradient of this chunk
    cast        c V E                   the output layer's weight as cast by autocast

The peak is the largest of three moments, added to what is always there: the loss (everything kept, no current layer), the last
layer's backward pass, and the embedding's dense gradient (4 V E) at the end. Where rows are cut over workers, validation is a fourth
(`planning.sequence`): its rows are as long as those of training, and all its layers attend in full.

On a GPU the caching allocator rounds blocks up to 512 bytes and cuts them from segments of 2 or 20 MiB and larger. The CUDA
context and its libraries need memory too. CUDA_OVERHEAD_BYTES and CUDA_ROUNDING are added for this; they are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_schemas.params import TrainingParams
from ray_jobs.finetune.planning.shape import TrainingShape

CUDA_OVERHEAD_BYTES = 700_000_000  # context, kernels, cuBLAS workspaces; not measured
CUDA_ROUNDING = 1.05  # factor on what a step allocates and frees: rounding and fragments; not measured
_PLACES_BYTES = 32  # of a token at an expert: where it was sorted to and back, its weight, and the expert's number
SHARE_USED = 0.97  # share of a GPU's memory that a plan may fill
SHARE_FOR_KEEPING = 0.8  # share up to which something is kept only to save time


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one worker at the peak of a step, by part. Parts that exist only at another moment are left out."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    overhead: float
    moment: str  # "loss", "backward", "embedding", "exchange of gradients" or "validation"

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss + self.overhead

    def parts(self) -> dict[str, float]:
        names = ("weights", "gradients", "optimizer", "activations", "loss", "overhead")
        return {name: getattr(self, name) for name in names}


def inside_layer_bytes(shape: TrainingShape) -> float:
    """Bytes a token that one layer keeps for its backward pass, without its own input."""
    s, c = shape.residual_bytes, shape.compute_bytes
    return (
        shape.hidden * s * (1 + 2 * shape.trains_norms)
        + _lora_input_bytes(shape)
        + (2 * shape.query + 2 * shape.key_value) * c
        + 4 * shape.num_heads
        + 3 * shape.intermediate * c
        + (1 + shape.trains_norms) * shape.head_norms * (shape.query + shape.key_value) * s
        + shape.experts_a_token * (shape.hidden * c + _PLACES_BYTES)
        + sum(shape.lora_reads.values()) * shape.lora_rank * c
        + 2 * shape.dora_writes * c
    )


def attention_bytes(shape: TrainingShape) -> float:
    """Bytes a token of one layer's output of attention and its log-sum-exp."""
    return shape.query * shape.compute_bytes + 4 * shape.num_heads


def mlp_bytes(shape: TrainingShape) -> float:
    """Of these, what an MLP in tiles (`training.mlp_tile_tokens`) keeps for one tile only: the gated values and what LoRA reads."""
    product = shape.lora_reads.get("product", 0)
    casts = shape.compute_bytes != shape.residual_bytes
    of_experts = shape.experts_a_token * (shape.hidden * shape.compute_bytes + _PLACES_BYTES)
    return shape.intermediate * shape.compute_bytes * (3 + (product if casts else min(product, 1))) + of_experts


def _lora_input_bytes(shape: TrainingShape) -> float:
    widths = {"attention": shape.hidden, "output": shape.query, "mlp": shape.hidden, "product": shape.intermediate}
    widths["experts"] = shape.experts_a_token * shape.hidden
    casts = shape.compute_bytes != shape.residual_bytes
    total = 0.0
    for place, readers in shape.lora_reads.items():
        copies = readers if casts else min(readers, 1)
        total += copies * widths[place] * shape.compute_bytes
    return total


def predict_memory(
    shape: TrainingShape,
    training: TrainingParams,
    tokens: int,
    *,
    num_workers: int = 1,
    cuda: bool = False,
    exchanged_bytes: float = 0.0,
    validation_bytes: float = 0.0,
) -> MemoryEstimate:
    """The peak on one of `num_workers` workers with `tokens` in a micro batch, from the second step on.

    `exchanged_bytes` are what a cut row needs beside it, `validation_bytes` all that one needs in validation
    (`planning.sequence.exchanged_bytes` and `validation_bytes`).
    """
    shards = num_workers if training.parallelism == "fsdp" else 1
    gathered = _gathered_bytes(shape) if shards > 1 else 0.0
    held = shape.frozen_bytes * (shape.num_frozen - shape.num_quantised) + shape.quantised_bytes * shape.num_quantised
    averaged = 4 * shape.num_trainable if training.average_last_steps else 0
    weights = (4 * shape.num_trainable + held + averaged) / shards + gathered
    states = 2 if training.optimizer == "adamw_8bit" else 8
    moments = _moments(shape, training, tokens)
    moments["backward"] = (moments["backward"][0] + exchanged_bytes, 0.0)
    moments["validation"] = (validation_bytes, 0.0)
    if num_workers > 1 and training.parallelism == "ddp":
        moments["exchange of gradients"] = (0.0, 4.0 * shape.num_trainable)
    moment = max(moments, key=lambda name: sum(moments[name]))
    activations, loss = moments[moment]
    return MemoryEstimate(
        weights=weights,
        gradients=4 * shape.num_trainable / shards,
        optimizer=states * shape.num_trainable / shards,
        activations=activations,
        loss=loss,
        overhead=CUDA_OVERHEAD_BYTES + (CUDA_ROUNDING - 1) * (activations + loss) if cuda else 0.0,
        moment=moment,
    )


def _moments(shape: TrainingShape, training: TrainingParams, tokens: int) -> dict[str, tuple[float, float]]:
    """(activations, loss and embedding) in bytes at each moment that can be the peak."""
    s, c, width = shape.residual_bytes, shape.compute_bytes, shape.hidden
    kept_layers = 2 if training.activation_offload and training.gradient_checkpointing else shape.num_layers
    between = tokens * (kept_layers * width + 2 * shape.cost.head_dim) * s
    cast_weights = c * shape.num_layer if shape.frozen_bytes > c else 0
    restored = (c + 4) * shape.largest_matrix if shape.num_quantised else 0
    if shape.num_quantised:
        cast_weights = 0
    in_tiles = training.mlp_tile_tokens is not None and training.mlp_tile_tokens < tokens
    tile = min(tokens, training.mlp_tile_tokens or tokens)
    of_mlp = mlp_bytes(shape)
    inside = tokens * (inside_layer_bytes(shape) - (of_mlp if in_tiles else 0)) + cast_weights
    inside += 4 * shape.updated_experts
    of_dora = 12 * (shape.largest_matrix if training.dora else 0) + 12 * shape.updated_experts
    backward = (
        tile * 3 * shape.intermediate * c + tokens * 2 * width * s + restored + of_dora + (tile * of_mlp if in_tiles else 0)
    )
    kept_layers_inside = min(training.kept_layers, shape.num_layers) if training.gradient_checkpointing else shape.num_layers
    recomputed = shape.num_layers - kept_layers_inside
    of_attention = tokens * attention_bytes(shape) if training.attention_outputs == "kept" else 0
    kept = between + kept_layers_inside * inside + recomputed * of_attention
    under_way = backward + (inside - of_attention if recomputed else 0)
    matrix = 4 * shape.vocabulary * width
    chunk = 4 * min(training.loss_chunk_tokens, tokens) * shape.vocabulary
    trained = matrix if shape.trains_head else 0
    cast_head = c * shape.vocabulary * width if c < 4 else 0
    loss = 4 * tokens * width * s + trained + chunk + max(chunk, trained) + cast_head
    return {"loss": (kept, loss), "backward": (kept + under_way, 0.0), "embedding": (tokens * width * s, float(trained))}


def forward_bytes(shape: TrainingShape, training: TrainingParams, tokens: int, beside_attention: float = 0.0) -> float:
    """Bytes of a forward pass of `tokens` without gradients, in attention, MLP or loss, of which one holds most.

    The embeddings, a layer's input, its normalised values and RoPE's tables are always there. `beside_attention` are what attention needs
    beside queries, keys, values and outputs; the projection of its output needs LoRA's input in float32 and three results.
    """
    s, c, width = shape.residual_bytes, shape.compute_bytes, shape.hidden
    tile = min(tokens, training.mlp_tile_tokens or tokens)
    of_projection = tokens * (3 * width * c + 4 * shape.query)
    of_attention = tokens * (2 * shape.query + 2 * shape.key_value) * c + max(beside_attention, of_projection)
    of_mlp = tile * (3 * shape.intermediate * c + shape.experts_a_token * (width * c + _PLACES_BYTES)) + tokens * width * s
    chunk = 8 * min(training.loss_chunk_tokens, tokens) * shape.vocabulary
    of_loss = chunk + (c * shape.vocabulary * width if c < 4 else 0)
    return tokens * (3 * width + 2 * shape.cost.head_dim) * s + max(of_attention, of_mlp, of_loss)


def _gathered_bytes(shape: TrainingShape) -> float:
    """FSDP2 gathers the current and the prefetched layer, and keeps embedding and output layer whole while they compute."""
    return 2 * shape.num_layer * (shape.quantised_bytes or shape.frozen_bytes) + 4 * shape.vocabulary * shape.hidden


def in_one_memory(training: TrainingParams) -> TrainingParams:
    """As a CPU computes: it has no other memory to offload to, so `activation_offload` moves nothing."""
    return training.model_copy(update={"activation_offload": False})


def keeping_attention_fits(
    shape: TrainingShape,
    training: TrainingParams,
    tokens: int,
    available_bytes: float,
    num_workers: int = 1,
    cuda: bool = False,
) -> bool:
    """Whether the outputs of attention of all layers fit beside all else, with some room, as `training.attention_outputs` auto asks."""
    keeping = training.model_copy(update={"attention_outputs": "kept"})
    found = predict_memory(shape, keeping, tokens, num_workers=num_workers, cuda=cuda)
    return found.total <= available_bytes * SHARE_FOR_KEEPING
