"""Bases whose weights are quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def refuse_quantised(config: PretrainedConfig, base: str) -> None:
    """UserError for a configuration with a `quantization_config`: such weights cannot be trained and merged here."""
    given: Any = getattr(config, "quantization_config", None)
    if not given:
        return
    settings = given if isinstance(given, dict) else given.to_dict()
    method = settings.get("quant_method") or settings.get("quant_type") or "no method named"
    bits = settings.get("bits") or (4 if settings.get("load_in_4bit") else 8 if settings.get("load_in_8bit") else None)
    how = f"{method}, {bits} bits" if bits else str(method)
    raise UserError(
        f"The base model {base} is quantised (quantization_config in its config.json: {how}), which Ropeway cannot train: give the "
        "unquantised base that it was made from."
    )
