"""What compared models and shares are called in tables and figures."""

ARM_LABELS = {"base": "base", "scaling_only": "scaling only", "fine_tuned": "fine-tuned"}


def arm_label(arm: str) -> str:
    """`base_yarn`, the base with another RoPE method and no training, is called base + yarn."""
    return ARM_LABELS.get(arm) or arm.replace("base_", "base + ", 1)


def percent(share: float) -> str:
    """A level or margin that somebody chose, without rounding it: 0.025 is 2.5%."""
    return f"{100 * share:g}%"
