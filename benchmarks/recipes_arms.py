"""The arms of `benchmarks.recipes`: settings of the demo that differ, and what every arm is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_schemas.params import PipelineParams
from data_schemas.retrieval_params import RetrievalParams

UNTRAINED = ("scaling_only", "base")
HELDOUT_FAMILY = "position"  # made by no arm with the mix, so that what transfers is seen
S2_LAST_STEPS = 1 / 3  # share of the steps that attend in full, for the arm that does

_S2: dict[str, Any] = {"full_attention_layers": "none"}
_FULL: dict[str, Any] = {"attention": "full"}


def _mix(share: float, **others: Any) -> dict[str, Any]:
    return {"share": share, "heldout_families": [HELDOUT_FAMILY], **others}


# Arm: what it changes of the demo's parameters, by section. The default has one layer of four in full, chosen by the probe.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "s2": {"training": _S2},
    "s2-last-steps-full": {"training": _S2 | {"full_attention_steps": S2_LAST_STEPS}},
    "auto": {},
    **{f"layer-{i}-alone": {"training": {"full_attention_layers": [i]}} for i in range(4)},
    "every-second": {"training": {"full_attention_layers": "none", "full_attention_every": 2}},
    "full": {"training": _FULL},
    "s2+mix": {"training": _S2, "retrieval": _mix(0.5)},
    "auto+mix": {"retrieval": _mix(0.5)},
    "auto+little-mix": {"retrieval": _mix(0.2)},
    "auto+mix-answers": {"retrieval": _mix(0.5, answer_weight=0.9)},
    "full+mix": {"training": _FULL, "retrieval": _mix(0.5)},
    "auto+exact": {"training": {"loss_weighting": "exact"}},
    "auto+long-ce": {"training": {"loss_weighting": "long_ce"}},
    "auto+short-rows": {"packing": {"row_length": 1024}},
    "auto+pose": {"packing": {"row_length": 1024}, "training": {"position_skipping": 2}},
}


def arm_params(arm: str, seed: int, length: int, work: Path) -> PipelineParams:
    """The demo's parameters with those of the arm; artifacts lie below `work`. Steps are set later, by time."""
    import flows

    preset = yaml.safe_load((Path(flows.__file__).parent / "presets" / "demo.yaml").read_text())
    changed = {section: dict(values) for section, values in ARMS.get(arm, {}).items()}
    changed.setdefault("training", {}).pop("full_attention_steps", None)
    for section, values in changed.items():
        preset.setdefault(section, {}).update(values)
    preset["storage"] = str(work)
    preset["model"]["target_length"] = length
    preset["training"] |= {"seed": seed, "validation_rows": 1, "validate_every": 1_000_000, "checkpoint_every": 1_000_000}
    preset["evaluation"] = {
        "lengths": [512, length],
        "num_documents": 48,
        "position_curve": False,
        "tasks": ["passkey", "short_key_value", "variable_tracking"],
        "num_depths": 5,
        "num_samples": 16,
        "reorder_samples": 0,
        "longppl_evaluator": None,
    }
    return PipelineParams.model_validate(preset)


def families_of(arm: str) -> tuple[str, ...]:
    """The kinds of retrieval documents that the arm trains."""
    mix = ARMS.get(arm, {}).get("retrieval")
    return RetrievalParams.model_validate(mix).trained_families if mix else ()
