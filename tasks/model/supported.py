"""Which bases shifted sparse attention can train, checked before any work and without weights.

First the configuration is checked. Then the model is built without storage, and eight tokens run through it with an attention
function that only records how each layer calls it: whether all layers do, whether they pass the documents' positions, and which
extras (biases by position) would be left out. This takes well under a second for any size.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

PROBE = "ropeway_probe"
UNCOMPUTED_OPTIONS = ("position_bias",)  # options of a layer that change its scores
KNOWN_GOOD = "Llama, Mistral, Qwen2, Qwen3, Gemma (1) and Phi-3 work"
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention", "dense", "sparse"}
_probed: dict[str, str] = {}  # the probe's answer by configuration, because every stage of a run loads the same one


def refuse_unsupported(config: PretrainedConfig) -> None:
    """UserError with the model type and the reason for a base whose attention S2-Attn would compute wrongly."""
    why = refusal(config)
    if why:
        raise UserError(f"A base of type {config.model_type!r} cannot be extended: {why}; choose another base: {KNOWN_GOOD}.")


def refusal(config: PretrainedConfig) -> str:
    """Why a model of this configuration cannot be trained with S2-Attn; "" if it can."""
    if why := _configured(config):
        return why
    content = json.dumps(config.to_dict(), sort_keys=True, default=str)
    if content not in _probed:
        _probed[content] = _probe(config)
    return _probed[content]


def _configured(config: PretrainedConfig) -> str:
    """The reason that the configuration alone gives; "" if there is none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder, and only the context of causal language models can be extended"
    parts = [part for part in ("vision_config", "audio_config") if getattr(config, part, None) is not None]
    if parts or config.get_text_config() is not config:
        return f"it is multimodal ({', '.join(parts) or 'text_config'}), and packed rows hold only text"
    if config.model_type not in CAUSAL:
        return "transformers has no causal language model of that type"
    if getattr(config, "use_bidirectional_attention", None):
        return "it is not causal (use_bidirectional_attention)"
    kinds = set(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ())
    if strange := sorted(kinds - _ATTENTION_LAYERS):
        return f"it has layers of type {', '.join(strange)}, which do not keep packed documents apart"
    return ""


@dataclass
class _Calls:
    """The calls of the attention function. `reasons` has one entry a call: why it must be refused, or ""."""

    reasons: list[str] = field(default_factory=list)
    windows: set[int | None] = field(default_factory=set)
    windows_of_masks: set[int | None] = field(default_factory=set)


def _probe(config: PretrainedConfig) -> str:
    """The reason that a forward pass without storage gives; "" if there is none."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

    calls = _Calls()

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        calls.reasons.append(_uncomputed(module, mask, options))
        calls.windows.add(options.get("sliding_window"))
        batch, heads, length, _ = query.shape
        return query.new_empty(batch, length, heads, value.shape[-1]), None

    def no_mask(*args: Any, local_size: int | None = None, **options: Any) -> None:
        calls.windows_of_masks.add(local_size)

    AttentionInterface.register(PROBE, attend)
    AttentionMaskInterface.register(PROBE, no_mask)
    failure = None
    try:
        with torch.device("meta"), torch.no_grad():
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation=PROBE, dtype=torch.bfloat16, trust_remote_code=False
            ).train()
            tokens = torch.zeros(1, 8, dtype=torch.long)
            # A mask of ones has no effect; without it, transformers would read the values of the positions, which do not exist here.
            model.base_model(input_ids=tokens, position_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    except Exception as error:  # some layers, such as experts, cannot run without storage; the calls before still count
        failure = error
    return _verdict(calls, config, failure)


def _uncomputed(module: Any, mask: Any, options: dict[str, Any]) -> str:
    what = {"position_bias": "a bias by position"}
    for name in UNCOMPUTED_OPTIONS:
        if options.get(name) is not None:
            return f"its attention has {what[name]} ({name}), which no S2-Attn executor computes"
    if not getattr(module, "is_causal", True) or options.get("is_causal") is False:
        return "its attention is not causal"
    if options.get("position_ids") is None:
        return "its layers do not pass position_ids to the attention function, so packed documents would see each other"
    if mask is not None:
        return "it makes attention masks of its own"
    return ""


def _verdict(calls: _Calls, config: PretrainedConfig, failure: Exception | None) -> str:
    for reason in calls.reasons:
        if reason:
            return reason
    if not calls.reasons:
        return "its layers do not call transformers' attention interface"
    layers = getattr(config, "num_hidden_layers", None)
    if failure is None and layers is not None and len(calls.reasons) < layers:
        return f"only {len(calls.reasons)} of its {layers} layers call transformers' attention interface"
    if failure is None and calls.windows_of_masks - {None} and not calls.windows - {None}:
        return "its layers do not pass their sliding window to the attention function"
    return ""
