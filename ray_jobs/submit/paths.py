"""The parameters of a job that runs in another folder, on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import CorpusSource, PipelineParams
from data_schemas.storage import Storage


def absolute_paths(params: PipelineParams) -> PipelineParams:
    """What the user named relative to this folder, made absolute; names that are no paths stay."""
    storage = Storage(params.storage)
    chunking, model, evaluation, ray = params.chunking, params.model, params.evaluation, params.ray
    corpus = params.corpus.model_copy(
        update={
            "sources": tuple(_source(source) for source in params.corpus.sources),
            "decontamination": params.corpus.decontamination.model_copy(
                update={"prompt_files": tuple(map(_file, params.corpus.decontamination.prompt_files))}
            ),
        }
    )
    return params.model_copy(
        update={
            "storage": storage.remote.uri if storage.remote else str(storage.root),
            "corpus": corpus,
            "chunking": chunking.model_copy(
                update={
                    "embedding_model": _if_there(chunking.embedding_model),
                    "spacy_pipeline": _if_there(chunking.spacy_pipeline),
                }
            ),
            "model": model.model_copy(
                update={
                    "base": model.base if model.base == "demo" else _if_there(model.base),
                    "rope_factors_file": _file(model.rope_factors_file),
                }
            ),
            "evaluation": evaluation.model_copy(update={"qa_file": _file(evaluation.qa_file)}),
            "ray": ray.model_copy(update={"working_dir": _file(ray.working_dir)}),
        }
    )


def refuse_secrets(params: PipelineParams) -> None:
    """UserError for a secret in a source's URI, which would stand in a file below the storage."""
    from tasks.ingest.locations import without_secrets

    named = [(f"corpus.sources[{i}].uri", source.uri) for i, source in enumerate(params.corpus.sources)]
    named += [("corpus.decontamination.prompt_files", name) for name in params.corpus.decontamination.prompt_files]
    for field, uri in named:
        if without_secrets(uri) != uri:
            raise UserError(
                f"{field} holds a secret, {without_secrets(uri)}: for a submitted job give it in the environment, and name the variable "
                "in ray.env_vars."
            )


def _source(source: CorpusSource) -> CorpusSource:
    uri = source.uri
    if "::" in uri or "://" in uri or uri.startswith(("hf:", "stdlib:")):
        return source
    return source.model_copy(update={"uri": _file(uri)})


def _file(path: Any) -> Any:
    if not path or "://" in path:
        return path
    return str(Path(path).expanduser().absolute())


def _if_there(path: str | None) -> str | None:
    """A name that may be a path or something else is a path where one is there."""
    return _file(path) if path and Path(path).expanduser().exists() else path
