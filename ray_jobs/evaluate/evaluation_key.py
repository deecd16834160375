"""What an evaluation depends on, and finding an equal one. It needs no torch, so that a run with nothing to do answers at once."""

from __future__ import annotations

from typing import Any

from data_schemas.manifest import stage_digest
from data_schemas.params import ModelParams, PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate.given_files import given_files
from tasks.model.base_model import base_fingerprint

CODE_VERSION = 10
KIND = "evaluations"
STAGE = "evaluate"


def stated_theta(model: ModelParams) -> dict[str, float]:
    """`rope_theta` and `window` where they are stated: the model with scaling only, which has no checkpoint, depends on them."""
    stated = {"rope_theta": model.rope_theta, "window": model.window}
    return {name: value for name, value in stated.items() if value is not None}


def inputs_of(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> dict[str, Any]:
    """The arguments of `stage_digest`."""
    parents = {"documents": documents.digest, "base": base_fingerprint(params.model)} | given_files(params)
    return {
        "stage": STAGE,
        "params": {
            "evaluation": params.evaluation.recorded(exclude={"qa_file", "published_data", "lm_eval_include"}),
            "target_length": params.model.target_length,
            "rope_method": params.model.rope_method,
            "use_gpu": params.ray.use_gpu,
        }
        | stated_theta(params.model),
        "code_version": CODE_VERSION,
        "parents": parents | ({"checkpoint": checkpoint.digest} if checkpoint else {}),
    }


def find(params: PipelineParams, storage: Storage, documents: Artifact, checkpoint: Artifact | None) -> Artifact | None:
    """The evaluation of an equal run, or None."""
    return storage.find(KIND, stage_digest(**inputs_of(params, documents, checkpoint)))
