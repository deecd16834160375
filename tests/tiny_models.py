"""Random models small enough for a test, of every architecture that fine-tuning is promised for."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

# Name in the tests: (configuration class, what it needs beside the sizes). Windows: one shorter than the groups used, one longer.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral-window-below-group": ("MistralConfig", {"sliding_window": 4}),
    "mistral-window-above-group": ("MistralConfig", {"sliding_window": 9}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "gemma": ("GemmaConfig", {}),
    "phi3": ("Phi3Config", {"pad_token_id": None}),
    "gemma2": ("Gemma2Config", {"sliding_window": 4, "attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 8,
            "pad_token_id": None,
        },
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            "sliding_window": 4,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0},
        },
    ),
    # Not promised by name; each has something of its own.
    "qwen2-window-in-one-layer": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 2, "sliding_window": None}),
    "smollm3-layer-without-rope": ("SmolLM3Config", {"pad_token_id": None, "no_rope_layers": [1, 0]}),
    "olmo2-norms-behind": ("Olmo2Config", {"pad_token_id": None}),
    "granite-scaled": ("GraniteConfig", {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
}
# Not trained in all tests of the architectures above.
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("CohereConfig", {"logit_scale": 0.25}),
    "lfm2-convolution": ("Lfm2Config", {"layer_types": ["conv", "full_attention"], "pad_token_id": None}),
    "qwen3-next-linear-attention": (
        "Qwen3NextConfig",
        {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2,
         "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1,
         "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "pad_token_id": None},
    ),
}  # fmt: skip
GROUP = 6


def tiny_config(
    kind: str, num_heads: int = 4, num_kv: int = 2, vocab: int = 64, length: int = 64, **more: Any
) -> PreTrainedConfig:
    name, own = (KINDS | FURTHER)[kind]
    if name == "Phi3Config":
        own = own | {"original_max_position_embeddings": length}
    sizes = {
        "vocab_size": vocab, "hidden_size": num_heads * 8, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": num_heads, "num_key_value_heads": num_kv, "head_dim": 8, "max_position_embeddings": length,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    return getattr(transformers, name)(**(sizes | own | more))


def tiny_model(kind: str, num_heads: int = 4, num_kv: int = 2, group: int = GROUP, **more: Any) -> PreTrainedModel:
    """In training mode, with S2-Attn in groups of `group` tokens."""
    torch.manual_seed(0)
    config = tiny_config(kind, num_heads, num_kv, **more)
    config.s2_group_size = group
    return AutoModelForCausalLM.from_config(config, attn_implementation="s2").train()


def positions(lengths: list[int]) -> torch.Tensor:
    """[1, T] position ids of documents of these lengths, one after another."""
    return torch.cat([torch.arange(n) for n in lengths])[None]


def influence(model: PreTrainedModel, lengths: list[int]) -> torch.Tensor:
    """[T, T]: how much output i moves when the embedding of token j moves (absolute Jacobian, summed over channels)."""
    embedded = torch.randn(1, sum(lengths), model.config.hidden_size)

    def run(x: torch.Tensor) -> torch.Tensor:
        return (
            model.model(inputs_embeds=x, position_ids=positions(lengths), use_cache=False).last_hidden_state[0].square().sum(-1)
        )

    jacobian = torch.autograd.functional.jacobian(run, embedded)  # [T, 1, T, E]
    return jacobian[:, 0].abs().sum(-1)
