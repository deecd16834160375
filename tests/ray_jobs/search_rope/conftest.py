"""A base to search on, and a finished search."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.search_rope import search_stage
from tests.heard import texts_into
from tests.ray_jobs.search_rope.search_example import documents_of, search_params, write_base


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    made = tmp_path_factory.mktemp("search")
    write_base(made / "base", tokenizer)
    return made


@pytest.fixture(scope="session")
def searched(folder: Path) -> tuple[PipelineParams, Artifact, list[str]]:
    params, told = search_params(folder), []
    storage = Storage(params.storage)
    return params, search_stage.run(params, storage, documents_of(storage), texts_into(told)), told
