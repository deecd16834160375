"""Every parameter that is a path or a URI, and which ones are misspelt."""

from __future__ import annotations

from collections.abc import Iterator

from data_schemas.advise_params import AdviseParams
from data_schemas.chunking_params import ChunkingParams
from data_schemas.corpus_params import CorpusParams
from data_schemas.evaluation_params import EvaluationParams
from data_schemas.model_params import ModelParams
from data_schemas.publish_params import PublishParams
from data_schemas.ray_params import RayParams
from data_schemas.spelling import spelling_fault

Address = tuple[str, str | None, tuple[str, ...]]
"""The parameter's name, its value, and the prefixes that only this parameter has."""

_A_HUB_ID = ("",)


def refuse_misspelt_addresses(
    storage: str,
    corpus: CorpusParams,
    model: ModelParams,
    chunking: ChunkingParams,
    evaluation: EvaluationParams,
    advise: AdviseParams,
    publish: PublishParams,
    ray: RayParams,
) -> None:
    """ValueError for an address that is almost a URI; it names the parameter and the right spelling."""
    found: list[Address] = [
        ("storage", storage, ()),
        ("model.base", model.base, _A_HUB_ID),
        ("model.rope_factors_file", model.rope_factors_file, ()),
        ("model.chat_template", model.chat_template, ()),
        ("chunking.embedding_model", chunking.embedding_model, _A_HUB_ID),
        ("advise.qa_file", advise.qa_file, ()),
        ("advise.embedding_model", advise.embedding_model, ()),
        ("ray.working_dir", ray.working_dir, ()),
        ("publish.signing_key", publish.signing_key, ()),
        *((f"publish.destinations[{i}]", place, ("hub",)) for i, place in enumerate(publish.destinations)),
        *_of_corpus(corpus),
        *_of_evaluation(evaluation),
    ]
    for name, address, own in found:
        if address and (fault := spelling_fault(address, own)):
            raise ValueError(f"{name} {address!r} is not an address: {fault}")


def _of_corpus(corpus: CorpusParams) -> Iterator[Address]:
    for i, source in enumerate(corpus.sources):
        yield f"corpus.sources[{i}]", source.uri, ("hf", "stdlib", "packages")
    for i, path in enumerate(corpus.decontamination.prompt_files):
        yield f"corpus.decontamination.prompt_files[{i}]", path, ()


def _of_evaluation(evaluation: EvaluationParams) -> Iterator[Address]:
    yield "evaluation.qa_file", evaluation.qa_file, ()
    yield "evaluation.lm_eval_include", evaluation.lm_eval_include, ()
    for name, path in evaluation.published_data:
        yield f"evaluation.published_data.{name}", path, ()
