"""The sizes that decide a training run's memory and operations, counted on a model whose weights have no storage."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from data_schemas.params import PipelineParams
from ray_jobs.finetune.full_layers import num_full_layers
from ray_jobs.finetune.grouped_layers import attention_windows, sparse_group_size
from ray_jobs.finetune.planning.flops import ModelCost, cost_of, expert_tensors, experts_a_token, is_by_tensor

# Which of a layer's four inputs a projection reads. Projections of one input share one saved tensor unless autocast casts it.
_READS = {
    "q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "qkv_proj": "attention", "query_key_value": "attention",
    "o_proj": "output", "dense": "output",
    "gate_proj": "mlp", "up_proj": "mlp", "gate_up_proj": "mlp", "fc1": "mlp",
    "down_proj": "product", "fc2": "product",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingShape:
    """Sizes of the model as it is trained; widths in channels, `lora_*` a layer."""

    num_layers: int
    hidden: int  # E
    query: int  # query heads x head dimension
    key_value: int  # key-value heads x head dimension
    num_heads: int
    intermediate: int  # F, of the gated MLP; of experts, those of all that compute a token
    vocabulary: int  # V
    num_total: int  # weights of the base
    num_trainable: int  # held in float32
    num_frozen: int  # including those that peft keeps in addition to trained copies
    num_layer: int  # weights of one decoder layer, without LoRA
    frozen_bytes: int  # an element of a frozen weight
    residual_bytes: int  # an element of the hidden states between layers
    compute_bytes: int  # an element in matrix products: 2 under bf16 autocast
    lora_rank: int
    lora_reads: dict[str, int]  # how many LoRA projections read each input of a layer
    trains_norms: bool
    trains_head: bool
    cost: ModelCost  # operations of a step
    windows: tuple[tuple[int, int | None], ...]  # layers that attend: number, and sliding window (None: it sees all)
    num_quantised: int = 0  # frozen weights that are held in fewer bits
    quantised_bytes: float = 0.0  # a weight, scales included
    largest_matrix: int = 0  # weights of the largest linear layer, which is restored at a time
    dora_writes: int = 0  # output channels of all DoRA projections of a layer
    experts_a_token: int = 0  # k, experts of a layer that compute a token
    updated_experts: int = 0  # weights of a layer's experts that LoRA updates as tensors
    head_norms: bool = False  # whether queries and keys have norms of their own
    attention_dropout: bool = False  # whether attention weights are dropped in training

    def layers_in_groups(self, params: PipelineParams) -> tuple[int, ...]:
        """Numbers of the layers that attend in groups in training, unless they are chosen to attend in full."""
        group_size = sparse_group_size(params)
        return tuple(layer for layer, window in self.windows if window is None or window >= group_size)

    def num_full_layers(self, params: PipelineParams) -> float:
        """How much of the model is chosen to attend in full, in layers."""
        return num_full_layers(params.training, self.num_layers, self.cost.kv_heads, self.layers_in_groups(params))


def training_shape(params: PipelineParams) -> TrainingShape:
    """The shape of `params`' training, by its largest layer. UserError for a model with experts that does not say how many a token uses."""
    import torch
    from transformers import AutoModelForCausalLM

    from ray_jobs.finetune.training.attention_dropout import has_attention_dropout
    from ray_jobs.finetune.training.lora import add_trainable_weights, trainable
    from tasks.model.base_model import load_config
    from tasks.model.quantised_linear import BYTES_A_WEIGHT, num_quantisable

    training, loaded = params.training, load_config(params.model)
    config: Any = loaded.get_text_config()
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated name of transformers
        base = AutoModelForCausalLM.from_config(loaded)
        num_total = sum(p.numel() for p in base.parameters())
        num_quantised = num_quantisable(base) if training.base_precision != "full" else 0
        layers = next(m for m in base.modules() if type(m) is torch.nn.ModuleList and len(m) == config.num_hidden_layers)
        layer = max(layers, key=num_weights)  # in a model with experts, some may be without
        num_layer = num_weights(layer)
        mlp, experts = _mlp_channels(layer, config)
        matrices = [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]
        model = add_trainable_weights(base, training)
    weights = trainable(model)
    causal_lm: Any = model.get_base_model()
    num_trainable = sum(p.numel() for _, p in weights)
    num_all = sum(p.numel() for p in model.parameters())
    trained_ids = {id(p) for _, p in weights}
    embeddings = own_weight(causal_lm.get_input_embeddings())
    trains_embeddings = id(embeddings) in trained_ids
    half = training.precision == "bf16"
    frozen_bytes = _element_bytes(config) if half and params.ray.use_gpu else 4
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    num_kv = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return TrainingShape(
        num_layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        query=config.num_attention_heads * head_dim,
        key_value=num_kv * head_dim,
        num_heads=config.num_attention_heads,
        intermediate=mlp,
        vocabulary=config.vocab_size,
        num_total=num_total,
        num_trainable=num_trainable,
        num_frozen=num_all - num_trainable,
        num_layer=num_layer,
        frozen_bytes=frozen_bytes,
        residual_bytes=2 if half and training.hidden_states == "bf16" else 4 if trains_embeddings else frozen_bytes,
        compute_bytes=2 if half else 4,
        lora_rank=training.lora_rank,
        lora_reads=_lora_reads(layer),
        trains_norms=training.train_norms,
        trains_head=id(own_weight(causal_lm.get_output_embeddings())) in trained_ids,
        cost=cost_of(model, config),
        windows=tuple(attention_windows(causal_lm, config.num_hidden_layers).items()),
        num_quantised=num_quantised,
        quantised_bytes=BYTES_A_WEIGHT.get(training.base_precision, 0.0),
        largest_matrix=max(m.in_features * m.out_features for m in matrices),
        dora_writes=_lora_writes(layer) if training.dora else 0,
        experts_a_token=experts,
        head_norms=any(name.endswith("q_norm") for name, _ in layer.named_modules()),
        updated_experts=_updated_weights(layer),
        attention_dropout=has_attention_dropout(config),
    )


def num_weights(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def _mlp_channels(layer: Any, config: Any) -> tuple[int, int]:
    """(channels between a layer's MLP projections that a token computes, experts that it uses; 0 without experts)."""
    stated = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    tensors = expert_tensors(layer)
    if not tensors:
        return stated, 0
    count = experts_a_token(config)
    width = min(tensor[0].numel() for tensor in tensors) // config.hidden_size
    shared = [m.out_features for name, m in layer.named_modules() if "shared" in name and name.endswith("up_proj")]
    return count * width + sum(shared), count


def own_weight(module: Any) -> Any:
    """The weight that an embedding or output layer computes with, also if peft wraps it for training in full."""
    if hasattr(module, "modules_to_save"):
        module = next(iter(module.modules_to_save.values()))
    return module.weight


def _lora_reads(layer: Any) -> dict[str, int]:
    found = dict.fromkeys(("attention", "output", "mlp", "product"), 0)
    for name, module in layer.named_modules():
        if is_by_tensor(module):
            place = _READS.get(module.parameter_name, "mlp")
            place = "experts" if place == "mlp" else place
            found[place] = found.get(place, 0) + 1
        elif hasattr(module, "lora_A"):
            last = name.rsplit(".", 1)[-1]
            found[_READS.get(last, "mlp")] += 1
    return found


def _updated_weights(layer: Any) -> int:
    """Weights of a layer that LoRA updates as tensors."""
    return sum(module.get_param().numel() for module in layer.modules() if is_by_tensor(module))


def _lora_writes(layer: Any) -> int:
    """Output channels of all LoRA projections of a layer."""
    return sum(module.out_features for module in layer.modules() if hasattr(module, "lora_A"))


def _element_bytes(config: Any) -> int:
    import torch

    dtype = getattr(config, "dtype", None) or torch.float32
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return int(dtype.itemsize)
