"""How tables and figures write arms (the compared models) and percentages."""

from data_schemas.samples import AS_SERVED, QUANTISED_ARM, is_served_arm

ARM_LABELS = {
    "base": "base",
    "scaling_only": "scaling only",
    "fine_tuned": "fine-tuned",
    QUANTISED_ARM: "fine-tuned, quantised",
}


def arm_label(arm: str) -> str:
    """`base_yarn`, the untrained base with another RoPE method, becomes base + yarn; `ARM_as_served` becomes ARM, as served."""
    if is_served_arm(arm):
        return f"{arm_label(arm.removesuffix(AS_SERVED))}, as served"
    return ARM_LABELS.get(arm) or arm.replace("base_", "base + ", 1)


def percent(share: float) -> str:
    """A chosen level or margin as a percentage, not rounded: 0.025 becomes 2.5%."""
    return f"{100 * share:g}%"
