"""What the report says of a model that was trained on a quantised base."""

from __future__ import annotations

from data_schemas.report import EvaluationSettings
from data_schemas.samples import QUANTISED_ARM


def quantised_note(settings: EvaluationSettings) -> str:
    """A sentence with a space in front; empty where the base was held in full."""
    if QUANTISED_ARM not in settings.arms:
        return ""
    held = f"in {settings.base_precision}" if settings.base_precision else "in fewer bits"
    rounded = (
        " Training also rounded the inputs of these layers, which is not measured." if settings.base_precision == "fp8" else ""
    )
    return (
        f" Quantised: the base's weights {held}, as they were held in training; the fine-tuned model has the same adapter in the "
        f"original weights.{rounded}"
    )
