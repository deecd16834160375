"""What an evaluation says it was measured with is true, and names no folder."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from data_schemas.params import PipelineParams
from data_schemas.report_origin import MeasuredWith
from data_schemas.storage import Storage
from ray_jobs.evaluate.arms import ArmModel
from ray_jobs.evaluate.measured_with import NUMBERS, measured_with
from tests.golden.inputs import write_base


def params_of(folder: Path, base: str, **model: object) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "measured",
            "storage": str(folder / "storage"),
            "corpus": {"sources": [str(folder / "private" / "books"), {"uri": "sftp://secret@bucket/law?page=1"}]},
            "model": {"base": base, "target_length": 256, "rope_method": "auto", **model},
        }
    )


def test_base_method_corpus_date_and_versions_without_folders(tmp_path: Path) -> None:
    found = measured_with(params_of(tmp_path, str(write_base(tmp_path / "my-base", window=128))))
    assert (found.base, found.method, found.corpus) == ("my-base", "yarn", ("books", "law"))
    assert found.date in {datetime.now(UTC).date().isoformat(), *_yesterday()}
    assert found.versions["torch"] == version("torch")
    assert found.device == "CPU"
    text = json.dumps(found.model_dump())
    assert str(tmp_path) not in text
    assert "secret" not in text


def _yesterday() -> set[str]:
    """Midnight may have passed since."""
    return {datetime.fromtimestamp(datetime.now(UTC).timestamp() - 60, UTC).date().isoformat()}


def test_the_type_of_numbers_is_that_of_the_loaded_models(tmp_path: Path) -> None:
    params = params_of(tmp_path, str(write_base(tmp_path / "base", window=128)))
    model = ArmModel.of(params, Storage(params.storage), None).load("base")
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, NUMBERS)}


def test_a_record_of_a_folder_of_this_machine_reads_again(tmp_path: Path) -> None:
    found = measured_with(params_of(tmp_path, str(write_base(tmp_path / "base", window=128))))
    assert MeasuredWith.model_validate_json(found.model_dump_json()) == found
