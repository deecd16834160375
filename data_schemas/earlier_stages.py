"""The training stages before a checkpoint, as its manifest keeps them: for its provenance, and for what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_schemas.manifest import Manifest

EARLIER_STAGES = "earlier_stages"  # in the summary of a checkpoint that goes on from another one
RETRIEVAL = "retrieval_mix"  # in the summary: the mix that was trained, if there was one
_FOUND = ("rope_method", "factor", "steps", "loss", "validation_loss", "full_attention", RETRIEVAL)


def stages_up_to(checkpoint: Manifest) -> list[dict[str, Any]]:
    """A record of each training stage up to this checkpoint's, in order: digest, parameters, parents, and what it reached."""
    record = {
        "digest": checkpoint.digest,
        "code_version": checkpoint.code_version,
        "params": checkpoint.params,
        "parents": checkpoint.parents,
    }
    found = {name: checkpoint.summary[name] for name in _FOUND if name in checkpoint.summary}
    return [*checkpoint.summary.get(EARLIER_STAGES, ()), record | found]


def mix_of(packed: Mapping[str, Any], answer_weight: float | None) -> dict[str, Any]:
    """What a checkpoint's summary says of the retrieval documents in its rows. `packed`: what the summary of the shards says of them."""
    families = [of_family["family"] for of_family in packed["families"]]
    return {"share": packed["reached"], "families": families, "answer_weight": answer_weight}


def describe_mix(mix: Mapping[str, Any]) -> str:
    """`mix`: see `mix_of`."""
    return f"{mix['share']:.0%} retrieval documents ({', '.join(mix['families'])})"


def describe_stages(stages: Sequence[Mapping[str, Any]]) -> str:
    """Such as `1024 tokens in 200 steps, yarn x2; 2048 tokens in 100 steps, yarn x4, 50% retrieval documents (key_value)`."""
    lines = []
    for stage in stages:
        length = stage["params"]["model"]["target_length"]
        line = f"{length} tokens in {stage['steps']} steps, {stage['rope_method']} x{stage['factor']:g}"
        if mix := stage.get(RETRIEVAL):
            line += f", {describe_mix(mix)}"
        lines.append(line)
    return "; ".join(lines)


def rows_read(checkpoint: Manifest, shards: str) -> int:
    """How many rows of the shards with this digest the training stages up to this checkpoint's have read; the next one goes on there."""
    return sum(
        stage["params"]["training"]["steps"] * stage["params"]["training"]["rows_per_step"]
        for stage in stages_up_to(checkpoint)
        if stage["parents"].get("shards") == shards
    )


def shards_trained_on(checkpoint: Manifest) -> list[str]:
    """Digests of the shards of all training stages up to this checkpoint's, in order; without those that are not recorded."""
    return [stage["parents"]["shards"] for stage in stages_up_to(checkpoint) if "shards" in stage["parents"]]
