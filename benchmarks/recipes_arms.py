"""The arms of `benchmarks.recipes`: settings of the demo that differ, and what every arm is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_schemas.params import PipelineParams
from data_schemas.retrieval_params import RetrievalParams

UNTRAINED = ("scaling_only", "base")
HELDOUT_FAMILY = "position"  # made by no arm, so that what transfers is seen
S2_LAST_STEPS = 1 / 3  # share of the steps that attend in full, for the arm that does

RANK, RATE, FULL_WEIGHT_RATE = 32, 2e-3, 1e-3  # of all arms
STEP_TOKENS = 8192  # at lengths up to this, so that longer rows do not mean fewer steps in the same time
LONGER_ROPE = 2  # RoPE is scaled for that many times the target, in the arms that say so

_S2: dict[str, Any] = {"full_attention_layers": "none"}
_FULL: dict[str, Any] = {"attention": "full"}
_MIX: dict[str, Any] = {"share": 0.3, "families": ["key_value", "fill_in"], "answer_weight": 0.4, "questions": 32}
_ROUNDS: dict[str, Any] = _MIX | {"families": ["key_value_rounds", "key_value"], "answer_weight": 0.8}  # as demo-long
_ALL_KINDS: dict[str, Any] = {"share": 0.3, "heldout_families": [HELDOUT_FAMILY], "answer_weight": 0.4, "questions": 32}
_LONGER_ROPE: dict[str, Any] = {"rope_length": LONGER_ROPE}  # times the target, see `arm_params`

# Arm: what it changes of the demo's parameters, by section. The default has one layer of four in full, chosen by the probe.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "auto": {},
    "s2": {"training": _S2},
    "full": {"training": _FULL},
    "auto+longer-rope": {"model": _LONGER_ROPE},
    "auto+mix": {"retrieval": _MIX},
    "auto+tenth-mix": {"retrieval": _MIX | {"share": 0.1}},
    "auto+mix+longer-rope": {"retrieval": _MIX, "model": _LONGER_ROPE},
    "auto+tenth-mix+longer-rope": {"retrieval": _MIX | {"share": 0.1}, "model": _LONGER_ROPE},
    "auto+twentieth-mix+longer-rope": {"retrieval": _MIX | {"share": 0.05}, "model": _LONGER_ROPE},
    "auto+tenth-mix+half-longer-rope": {"retrieval": _MIX | {"share": 0.1}, "model": {"rope_length": 1.5}},
    "auto+many-forms+longer-rope": {"retrieval": _MIX, "model": _LONGER_ROPE},  # what auto+mix is since version 8 of the mix
    "auto+rounds+longer-rope": {"retrieval": _ROUNDS, "model": _LONGER_ROPE},
    "auto+tenth-rounds+longer-rope": {"retrieval": _ROUNDS | {"share": 0.1}, "model": _LONGER_ROPE},
    "auto+mix-answers-10+longer-rope": {"retrieval": _MIX | {"answer_weight": 0.1}, "model": _LONGER_ROPE},
    "s2+mix+longer-rope": {"training": _S2, "retrieval": _MIX, "model": _LONGER_ROPE},
    "full+mix+longer-rope": {"training": _FULL, "retrieval": _MIX, "model": _LONGER_ROPE},
    "auto+half-mix+longer-rope": {"retrieval": _MIX | {"share": 0.5}, "model": _LONGER_ROPE},
    "auto+all-kinds+longer-rope": {"retrieval": _ALL_KINDS, "model": _LONGER_ROPE},
    **{
        f"auto+mix+longer-rope+short-{share}": {
            "retrieval": _MIX,
            "model": _LONGER_ROPE,
            "training": {"short_window_share": share / 100},
        }
        for share in (25, 50)
    },
    **{f"layer-{i}-alone": {"training": {"full_attention_layers": [i]}} for i in range(4)},
    "heads": {"training": {"full_attention_heads": "auto"}},
    "heads+mix+longer-rope": {"training": {"full_attention_heads": "auto"}, "retrieval": _MIX, "model": _LONGER_ROPE},
    "every-second": {"training": {"full_attention_layers": "none", "full_attention_every": 2}},
    "s2-last-steps-full": {"training": _S2 | {"full_attention_steps": S2_LAST_STEPS}},
    "auto+exact": {"training": {"loss_weighting": "exact"}},
    "auto+long-ce": {"training": {"loss_weighting": "long_ce"}},
    "auto+short-rows": {"packing": {"row_length": 1024}},
    "auto+pose": {"packing": {"row_length": 1024}, "training": {"position_skipping": 2}},
}


def arm_params(arm: str, seed: int, length: int, work: Path) -> PipelineParams:
    """The demo's corpus and base with the settings of the arm; artifacts lie below `work`. Steps are set later, by time."""
    import flows

    preset = yaml.safe_load((Path(flows.__file__).parent / "presets" / "demo.yaml").read_text())
    preset.pop("retrieval", None)  # the demo may have a mix
    changed = {section: dict(values) for section, values in ARMS.get(arm, {}).items()}
    longer = changed.pop("model", {}).get("rope_length", 1)
    changed.setdefault("training", {}).pop("full_attention_steps", None)
    preset["training"] |= {
        "rows_per_step": max(1, STEP_TOKENS // length),
        "lora_rank": RANK,
        "lora_alpha": 2 * RANK,
        "learning_rate": RATE,
        "full_weight_learning_rate": FULL_WEIGHT_RATE,
        "precision": "auto",
        "seed": seed,
        "validation_rows": 1,
        "validate_every": 1_000_000,
        "checkpoint_every": 1_000_000,
    }
    for section, values in changed.items():
        preset.setdefault(section, {}).update(values)
    preset["ray"] = {"num_workers": 1}  # an arm is one process; rows of 8192 tokens are one a step
    preset["storage"] = str(work)
    preset["model"] |= {"target_length": length, "rope_length": round(longer * length)}
    preset["evaluation"] = {
        "lengths": [512, length],
        "num_documents": 48,
        "position_curve": False,
        "tasks": ["passkey", "short_key_value", "niah_single"],
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
