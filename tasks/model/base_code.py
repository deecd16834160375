"""Bases that bring Python code of their own (`auto_map`, https://huggingface.co/docs/transformers/custom_models).

That code is never run. A base works without it if transformers has the same class itself, as for Phi-3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def needs_own_code(error: Exception) -> bool:
    """Whether transformers refused to load a part of a base because only the base's own code could load it."""
    return "trust_remote_code" in str(error)


def own_class(config: PretrainedConfig) -> str:
    """The causal language model that the base's own code defines, such as `modeling_x.XForCausalLM`; "" without one."""
    named = getattr(config, "auto_map", None) or {}
    return str(named.get("AutoModelForCausalLM") or "")


def refuse_other_class(config: PretrainedConfig, base: str) -> None:
    """UserError if the base's own model class is another than the one that transformers would use for its model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    own, ours = own_class(config), CAUSAL.get(config.model_type, ())
    known = {ours} if isinstance(ours, str) else set(ours)
    if own and own.rpartition(".")[2] not in known:
        raise UserError(
            f"The base model {base} is defined by code that comes with it (auto_map in its config.json: {own}), which Ropeway does not "
            f"run, and transformers' {config.model_type} may compute something else: choose a base that transformers loads by itself."
        )
