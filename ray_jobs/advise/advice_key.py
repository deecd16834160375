"""What the advice depends on, and finding an equal one. It needs no torch, so that a run with nothing to do answers at once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.manifest import hash_file, stage_digest
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.evaluate.evaluation_key import stated_theta
from tasks.model.base_model import base_fingerprint
from tasks.model.extended import read_factors_file

CODE_VERSION = 4
KIND = "advices"
STAGE = "advise"


def inputs_of(params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> dict[str, Any]:
    """The arguments of `stage_digest`. UserError where a file that the parameters name cannot be read."""
    parents = {"documents": documents.digest, "base": base_fingerprint(params.model)} | _given(params)
    return {
        "stage": STAGE,
        "params": {
            "advise": params.advise.recorded(exclude={"after_evaluation", "qa_file", "embedding_model"}),
            "chunking": params.chunking.recorded(),
            "chat_template": params.evaluation.chat_template,
            "has_instructions": params.corpus.has_instructions,
            "target_length": params.model.target_length,
            "rope_method": params.model.rope_method,
            "use_gpu": params.ray.use_gpu,
            "max_seen_share": params.evaluation.max_seen_share,
        }
        | stated_theta(params.model),
        "code_version": CODE_VERSION,
        "parents": parents | ({"checkpoint": checkpoint.digest} if checkpoint else {}),
    }


def find(params: PipelineParams, storage: Storage, documents: Artifact, checkpoint: Artifact | None) -> Artifact | None:
    """The advice of an equal run, or None."""
    return storage.find(KIND, stage_digest(**inputs_of(params, documents, checkpoint)))


def qa_file(params: PipelineParams) -> tuple[str, str] | None:
    """(path, name of its parameter) of the user's own questions; None: they are made from held-out documents."""
    if params.advise.qa_file:
        return params.advise.qa_file, "advise.qa_file"
    return (params.evaluation.qa_file, "evaluation.qa_file") if params.evaluation.qa_file else None


def _given(params: PipelineParams) -> dict[str, str]:
    """Hashes of the files that the parameters name, as parents."""
    hashes = {}
    if given := qa_file(params):
        hashes["qa"] = _hash(Path(given[0]).expanduser(), given[1])
    if factors := params.model.rope_factors_file:
        try:
            hashes["rope_factors"] = hashlib.sha256(read_factors_file(factors)).hexdigest()
        except OSError as error:
            raise UserError(
                f"model.rope_factors_file {factors} cannot be read: {error.strerror}; give an existing file."
            ) from error
    if folder := params.advise.embedding_model:
        files = sorted(path for path in Path(folder).expanduser().glob("*") if path.is_file())
        listed = [f"{path.name} {_hash(path, 'advise.embedding_model')}" for path in files]
        hashes["embedding_model"] = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    return hashes


def _hash(path: Path, parameter: str) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise UserError(f"{parameter} {path} cannot be read: {error.strerror}; give an existing file.") from error
