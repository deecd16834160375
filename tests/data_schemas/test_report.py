"""A report read from a file is written with the same bytes, and a file that is not a report is refused with the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import UserError
from data_schemas.evaluation_params import EvaluationParams
from data_schemas.report import EvaluationSettings, read_report, read_settings, record_json

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "demo" / "report.json"
NOT_RECORDED = {"num_documents", "batch_tokens", "rope_methods"}
REQUIRED = ("base_window", "target_length", "target_tokens", "confidence", "seed", "non_inferiority_margin")


def test_the_recorded_demo_is_written_again_byte_for_byte() -> None:
    assert record_json(read_report(RECORDED)) == RECORDED.read_text(encoding="utf-8")


def test_a_report_of_version_2_reads_and_writes_unchanged(tmp_path: Path) -> None:
    content = json.loads(RECORDED.read_text(encoding="utf-8")) | {"schema_version": 2}
    del content["reorder"]
    for newer in ("reorder_samples", "reorder_left_out", "trained_on_check"):
        del content["settings"][newer]
    text = json.dumps(content, indent=1) + "\n"
    (tmp_path / "report.json").write_text(text)
    report = read_report(tmp_path / "report.json")
    assert report.reorder_decision is None
    assert record_json(report) == text


def _changed(path: Path, *place: str | int, value: Any) -> None:
    content = json.loads(RECORDED.read_text(encoding="utf-8"))
    *parents, last = place
    inner = content
    for key in parents:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema_version",), 1, r"schema_version: Input should be 2 or 3"),
        (("perplexity", 3, "low"), "low", r"perplexity\[3\]\.low: Input should be a valid number"),
        (("tasks", 0, "median"), 0.5, r"tasks\[0\]\.median: Extra inputs are not permitted"),
        (("non_inferiority", "tasks", 0, "verdict"), "fine", r"non_inferiority\.tasks\[0\]\.verdict"),
        (("longppl",), None, r"longppl: Input should be an object"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file_and_place(tmp_path: Path, place: Any, value: Any, said: str) -> None:
    path = tmp_path / "report.json"
    _changed(path, *place, value=value)
    with pytest.raises(UserError, match=rf"report\.json is not an evaluation's report \({said}"):
        read_report(path)


@pytest.mark.parametrize(("text", "said"), [(None, "is missing"), ("[", "the file: Invalid JSON"), ("[]", "the file: Input")])
def test_a_file_that_is_missing_or_no_object_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"report\.json.*{said}.*give the folder of an evaluation"):
        read_report(path)


@pytest.mark.parametrize("lacking", REQUIRED)
def test_settings_need_what_the_report_is_computed_with_and_nothing_else(tmp_path: Path, lacking: str) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))["settings"]
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({name: recorded[name] for name in REQUIRED}))
    assert (read_settings(path).base_window, read_settings(path).arms) == (512, ())
    path.write_text(json.dumps({name: recorded[name] for name in REQUIRED if name != lacking}))
    with pytest.raises(UserError, match=rf"{lacking}: Field required"):
        read_settings(path)


def test_every_evaluation_parameter_has_its_place_in_the_settings() -> None:
    """In the same order, which is the order of the file."""
    recorded = [name for name in EvaluationParams.model_fields if name not in NOT_RECORDED]
    now = [name for name in EvaluationSettings.model_fields if name != "protocols"]  # of older versions
    assert now[: len(recorded)] == recorded


def test_a_published_report_names_no_folder() -> None:
    settings = read_report(RECORDED).settings.model_copy(update={"qa_file": "/home/somebody/questions.jsonl"})
    assert settings.publishable().qa_file == "questions.jsonl"
