"""What a search depends on, and finding an equal one. It needs no torch, so that a run with nothing to do answers at once."""

from __future__ import annotations

from typing import Any

from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.rope_search import SEARCHES
from data_schemas.storage import Artifact, Storage
from tasks.model.base_model import base_fingerprint
from tasks.rope_search.served import publishes_two_lists, searches_attention

CODE_VERSION = 3
KIND = SEARCHES
STAGE = "search-rope"


def inputs_of(params: PipelineParams, documents: Artifact, start: Artifact | None = None) -> dict[str, Any]:
    """The arguments of `stage_digest`. `start`: the checkpoint on whose model factors are searched; None: the base.

    `model.serve_with` decides two things of a search, which are in it. It does not decide the rivals: a program that reads a base's
    longrope also reads its YaRN and another `rope_theta` (tested for every claim of `data_schemas.consumers`).
    """
    parents = {"documents": documents.digest, "base": base_fingerprint(params.model)}
    return {
        "stage": STAGE,
        "params": {
            "rope_search": params.rope_search.recorded(),
            "target_length": params.model.target_length,
            "window": params.model.window,
            "attention": searches_attention(params),
            "use_gpu": params.ray.use_gpu,
        }
        | ({"two_lists": True} if publishes_two_lists(params) else {}),
        "code_version": CODE_VERSION,
        "parents": parents | ({"checkpoint": start.digest} if start else {}),
    }


def find(params: PipelineParams, storage: Storage, documents: Artifact, start: Artifact | None = None) -> Artifact | None:
    """The search of an equal run, or None."""
    return storage.find(KIND, stage_digest(**inputs_of(params, documents, start)))
