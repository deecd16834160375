"""The parameters of a run for a process in another folder: Ray's workers change directory, and jobs run on other machines."""

from __future__ import annotations

from pathlib import Path

from data_schemas.addresses import local_path
from data_schemas.params import CorpusSource, PipelineParams
from data_schemas.storage import Storage


def absolute_paths(params: PipelineParams) -> PipelineParams:
    """`params` with every relative path made absolute from the current folder; URIs and names that are not paths stay."""
    storage = Storage(params.storage)
    chunking, model, evaluation, ray = params.chunking, params.model, params.evaluation, params.ray
    corpus = params.corpus.model_copy(
        update={
            "sources": tuple(_source(source) for source in params.corpus.sources),
            "decontamination": params.corpus.decontamination.model_copy(
                update={"prompt_files": tuple(map(_absolute, params.corpus.decontamination.prompt_files))}
            ),
        }
    )
    return params.model_copy(
        update={
            "storage": storage.remote.uri if storage.remote else str(storage.root),
            "corpus": corpus,
            "chunking": chunking.model_copy(
                update={
                    "embedding_model": _absolute_if_there(chunking.embedding_model),
                    "spacy_pipeline": _absolute_if_there(chunking.spacy_pipeline),
                }
            ),
            "model": model.model_copy(
                update={
                    "base": model.base if model.base == "demo" else _absolute_if_there(model.base),
                    "rope_factors_file": _file(model.rope_factors_file),
                    "chat_template": _file(model.chat_template),
                }
            ),
            "training": params.training.model_copy(
                update={
                    "stages": tuple(
                        stage.model_copy(update={"rope_factors_file": _file(stage.rope_factors_file)})
                        for stage in params.training.stages
                    )
                }
            ),
            "evaluation": evaluation.model_copy(
                update={
                    "qa_file": _file(evaluation.qa_file),
                    "lm_eval_include": _file(evaluation.lm_eval_include),
                    "published_data": evaluation.published_data.model_copy(
                        update={name: _file(path) for name, path in evaluation.published_data}
                    ),
                }
            ),
            "advise": params.advise.model_copy(
                update={"qa_file": _file(params.advise.qa_file), "embedding_model": _file(params.advise.embedding_model)}
            ),
            "publish": params.publish.model_copy(update={"signing_key": _file(params.publish.signing_key)}),
            "ray": ray.model_copy(update={"working_dir": _file(ray.working_dir)}),
        }
    )


def _source(source: CorpusSource) -> CorpusSource:
    if "::" in source.uri or source.uri.startswith(("hf:", "stdlib:", "packages:")):
        return source
    return source.model_copy(update={"uri": _absolute(source.uri)})


def _absolute(path: str) -> str:
    return path if "://" in path else str(local_path(path))


def _file(path: str | None) -> str | None:
    return _absolute(path) if path else path


def _absolute_if_there(name: str | None) -> str | None:
    """A name that may be a path or something else is a path if a file or folder is there."""
    return _file(name) if name and Path(name).expanduser().exists() else name
