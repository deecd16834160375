"""`provenance.json`: what a release was made from, without times or paths of this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from data_schemas.earlier_stages import EARLIER_STAGES, RETRIEVAL
from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.portable import portable
from tasks.publish.rounding import Rounding

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "ray", "numpy", "pyarrow", "spacy", "datasets")

# What a stage chose by itself: the layers in full attention with their scores, the RoPE method that a search of factors chose and why. And
# the retrieval mix, and the training stages before the last one.
_FOUND = ("full_attention", "chosen", "verdict", RETRIEVAL, EARLIER_STAGES)


def provenance(
    params: PipelineParams,
    base: BaseIdentity,
    stages: Mapping[str, Manifest],
    release: Mapping[str, Any],
    rounding: Rounding | None = None,
) -> dict[str, Any]:
    """JSON values: the base, what rounding its weights cost, each stage's digest, code version and parameters, seeds, and package versions.

    It depends only on the parents' manifests, the release's digest and the installed packages, so two runs with the same digest
    write the same bytes on the same installation.
    """
    return {
        "schema_version": 1,
        "release": dict(release),
        "base": {"name": base.name, "revision": base.revision, "fingerprint": base.fingerprint, "licence": base.licence},
        "stages": {
            name: {
                "digest": manifest.digest,
                "code_version": manifest.code_version,
                "params": portable(manifest.params),
                "parents": manifest.parents,
            }
            | {key: portable(manifest.summary[key]) for key in _FOUND if key in manifest.summary}
            for name, manifest in stages.items()
        },
        **_told_by_shards(stages),
        **({"rounding": rounding.to_json()} if rounding else {}),
        "seeds": {
            "corpus.split_seed": params.corpus.split_seed,
            **({"retrieval.seed": params.retrieval.seed} if any(stage.retrieval.share for stage in params.by_stage()) else {}),
            "packing.seed": params.packing.seed,
            "training.seed": params.training.seed,
            "evaluation.seed": params.evaluation.seed,
        },
        "versions": {"python": platform.python_version(), "ropeway": _version("ropeway"), **{p: _version(p) for p in PACKAGES}},
    }


def _told_by_shards(stages: Mapping[str, Manifest]) -> dict[str, Any]:
    """How much of the training rows are retrieval documents, by kind, and instruction data, if there are any. Where training had several
    stages, they say that they are about the last one."""
    told = stages["shards"].summary if "shards" in stages else {}
    is_last = "checkpoint" in stages and bool(stages["checkpoint"].summary.get(EARLIER_STAGES))
    about = {"about": "rows of the last training stage alone"} if is_last else {}
    return {name: told[name] | about for name in ("retrieval", "instructions") if told.get(name)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
