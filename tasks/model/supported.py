"""What a base must be to be extended at all, by its configuration alone: a causal language model of text.

Whether it can then be trained exactly is proven on a small model of its configuration, see `ray_jobs.finetune.proof`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

KNOWN_GOOD = "docs/models.md lists the architectures that work, such as Llama, Mistral, Qwen2, Qwen3, Gemma and Phi-3"


def refuse_unsupported(config: PretrainedConfig) -> None:
    """UserError with the model type and the reason for a base that is no causal language model of text."""
    why = refusal(config)
    if why:
        raise UserError(f"A base of type {config.model_type!r} cannot be extended: {why}; choose another base: {KNOWN_GOOD}.")


def refusal(config: PretrainedConfig) -> str:
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
    return ""
