"""Every parameter that is a path or a URI, and which ones are misspelt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_schemas.spelling import spelling_fault

if TYPE_CHECKING:
    from data_schemas.params import PipelineParams

_A_HUB_ID = ("",)


def refuse_misspelt_addresses(params: PipelineParams) -> None:
    """ValueError for an address that is almost a URI; it names the parameter and the right spelling."""
    for name, address, own in _addresses(params):
        if address and (fault := spelling_fault(address, own)):
            raise ValueError(f"{name} {address!r} is not an address: {fault}")


def _addresses(params: PipelineParams) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """The parameter's name, its value, and the prefixes that only this parameter has."""
    yield "storage", params.storage, ()
    for i, source in enumerate(params.corpus.sources):
        yield f"corpus.sources[{i}]", source.uri, ("hf", "stdlib")
    for i, path in enumerate(params.corpus.decontamination.prompt_files):
        yield f"corpus.decontamination.prompt_files[{i}]", path, ()
    yield "model.base", params.model.base, _A_HUB_ID
    yield "model.rope_factors_file", params.model.rope_factors_file, ()
    yield "chunking.embedding_model", params.chunking.embedding_model, _A_HUB_ID
    yield "evaluation.qa_file", params.evaluation.qa_file, ()
    yield "evaluation.lm_eval_include", params.evaluation.lm_eval_include, ()
    for name, path in params.evaluation.published_data:
        yield f"evaluation.published_data.{name}", path, ()
    for i, place in enumerate(params.publish.destinations):
        yield f"publish.destinations[{i}]", place, ("hub",)
    yield "ray.working_dir", params.ray.working_dir, ()
