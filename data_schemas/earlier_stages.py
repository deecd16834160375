"""The training stages before a checkpoint, as its manifest keeps them: for its provenance, and for what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_schemas.manifest import Manifest

EARLIER_STAGES = "earlier_stages"  # in the summary of a checkpoint that goes on from another one
RETRIEVAL_SHARE = "retrieval_share"  # in the summary: what share of the rows' tokens were retrieval documents, if any were
_FOUND = ("rope_method", "factor", "steps", "loss", "validation_loss", "full_attention", RETRIEVAL_SHARE)


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


def describe_stages(stages: Sequence[Mapping[str, Any]]) -> str:
    """Such as `1024 tokens in 200 steps, yarn x2; 2048 tokens in 100 steps, yarn x4, 50% of the row tokens in retrieval documents`."""
    lines = []
    for stage in stages:
        length = stage["params"]["model"]["target_length"]
        line = f"{length} tokens in {stage['steps']} steps, {stage['rope_method']} x{stage['factor']:g}"
        if share := stage.get(RETRIEVAL_SHARE):
            line += f", {share:.0%} of the row tokens in retrieval documents"
        lines.append(line)
    return "; ".join(lines)


def shards_trained_on(checkpoint: Manifest) -> list[str]:
    """Digests of the shards of all training stages up to this checkpoint's, in order; without those that are not recorded."""
    return [stage["parents"]["shards"] for stage in stages_up_to(checkpoint) if "shards" in stage["parents"]]
