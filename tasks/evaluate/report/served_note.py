"""What the report says of models measured as a server runs them."""

from __future__ import annotations

from data_schemas.report import EvaluationSettings
from data_schemas.samples import is_served_arm


def as_served_note(settings: EvaluationSettings) -> str:
    """A sentence with a space in front; empty where nothing was asked for."""
    if any(map(is_served_arm, settings.arms)):
        return " As served: with the frequencies that vLLM uses for every prompt, those of the full window."
    return f" As served: {settings.as_served_note}." if settings.as_served_note else ""
