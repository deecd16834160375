"""Files that the parameters of an evaluation name: their content, and not their place, decides what is measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.manifest import hash_file
from data_schemas.params import PipelineParams
from tasks.model.extended import read_factors_file

_OF_LM_EVAL_TASKS = {".yaml", ".yml", ".py", ".json", ".jsonl"}


def asks_qa(params: PipelineParams) -> bool:
    """Whether questions come from evaluation.qa_file, if there is one."""
    return "document_qa" in params.evaluation.tasks or asks_ranked(params)


def asks_ranked(params: PipelineParams) -> bool:
    """Whether reorder strategies are compared, on the published arm."""
    return params.evaluation.reorder_samples > 0 and "fine_tuned" in params.evaluation.arms


def given_files(params: PipelineParams) -> dict[str, str]:
    """Hashes of the files that the parameters name, as parents."""
    given = {
        "qa": (params.evaluation.qa_file if asks_qa(params) else None, "evaluation.qa_file"),
    }
    hashes = {parent: _hash(path, field) for parent, (path, field) in given.items() if path}
    if factors := params.model.rope_factors_file:
        try:
            hashes["rope_factors"] = hashlib.sha256(read_factors_file(factors)).hexdigest()
        except OSError as error:
            raise UserError(
                f"model.rope_factors_file {factors} cannot be read: {error.strerror}; give an existing file."
            ) from error
    hashes |= {f"published_{name}": digest for name, digest in published_files(params).items()}
    folder = params.evaluation.lm_eval_include
    if folder and params.evaluation.lm_eval_tasks:
        root = Path(folder).expanduser()
        files = [path for path in sorted(root.rglob("*")) if path.suffix in _OF_LM_EVAL_TASKS and path.is_file()]
        hashes |= {f"lm_eval/{path.relative_to(root)}": _hash(str(path), "evaluation.lm_eval_include") for path in files}
    return hashes


def published_files(params: PipelineParams) -> dict[str, str]:
    """Hashes of the authors' files, and of the evaluator of LongPPL, that evaluation.published needs."""
    from tasks.evaluate.published.files import data_files, evaluator_files

    if not params.evaluation.published:
        return {}
    files = data_files(params.evaluation) | evaluator_files(params.evaluation)
    return {name: _hash(str(path), f"evaluation.published_data {name}") for name, path in files.items()}


def _hash(path: str, field: str) -> str:
    try:
        return hash_file(Path(path).expanduser())
    except OSError as error:
        raise UserError(f"{field} {path} cannot be read: {error.strerror}; give an existing file.") from error
