"""A changed output with an unchanged CODE_VERSION would be taken for the old one: it fails here."""

import json
import re

import pytest

from tests.golden import record
from tests.golden.comparison import differences
from tests.golden.stages import STAGES, GoldenStage, modules_with_a_code_version


def test_every_stage_with_a_code_version_has_a_recorded_output() -> None:
    assert {stage.module for stage in STAGES.values()} == modules_with_a_code_version()


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_output_is_the_recorded_one(stage: GoldenStage) -> None:
    changed = stage.differences(stage.output())
    told = "\n".join(changed[:20])
    assert not changed, f"raise CODE_VERSION in {stage.code} and record the new output with `{stage.command}`:\n{told}"
    recorded = stage.recorded()
    assert recorded is not None
    assert recorded["code_version"] == stage.code_version, f"record the output with `{stage.command}`"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_what_is_recorded_names_no_machine(stage: GoldenStage) -> None:
    text = stage.file.read_text(encoding="utf-8")
    for private in (r"/tmp/", r"/home/(?!somebody)", r"/work/", r"\b20\d\d-\d\d-\d\dT", r"pytest-of"):
        assert not re.search(private, text), private


def test_recording_refuses_a_changed_output_of_the_same_version(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    stage = STAGES["documents"]
    monkeypatch.setattr("tests.golden.stages.FOLDER", tmp_path)
    made = {"value": 1}
    monkeypatch.setattr(GoldenStage, "output", lambda _: made)
    assert record.main(["documents"]) == 0
    assert json.loads(stage.file.read_text()) == {"code_version": stage.code_version, "output": {"value": 1}}
    made = {"value": 2}
    assert record.main(["documents"]) == 1
    assert json.loads(stage.file.read_text())["output"] == {"value": 1}
    monkeypatch.setattr(f"{stage.module}.CODE_VERSION", stage.code_version + 1)
    assert record.main(["documents"]) == 0
    assert json.loads(stage.file.read_text()) == {"code_version": stage.code_version, "output": {"value": 2}}
    assert record.main(["nothing"]) == 2


def test_only_a_new_kind_is_recorded_without_a_new_version(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    stage = STAGES["evaluations"]
    monkeypatch.setattr("tests.golden.stages.FOLDER", tmp_path)
    made = {stage.by_kind: {"passkey": "a"}, "report": {"n": 1}}
    monkeypatch.setattr(GoldenStage, "output", lambda _: made)
    assert record.main(["evaluations"]) == 0
    with_kind = {stage.by_kind: {"passkey": "a", "short_key_value": "b"}, "report": {"n": 1}}
    for wrong in (
        with_kind | {"report": {"n": 1, "m": 2}},
        with_kind | {"settings": 1},
        {stage.by_kind: {}, "report": {"n": 1}},
    ):
        made = wrong
        assert record.main(["evaluations"]) == 1
    made = with_kind
    assert record.main(["evaluations"]) == 0
    assert json.loads(stage.file.read_text())["output"] == with_kind


@pytest.mark.parametrize(
    ("recorded", "found", "tolerance", "same"),
    [
        (1.0, 1.0 + 1e-9, None, False),
        (1.0, 1.0 + 1e-6, 1e-4, True),
        (1.0, 1.01, 1e-4, False),
        (1, 2, 1e-4, False),
        (1, True, None, False),
        ("loss 2.41, step 3", "loss 2.42, step 3", 1e-4, True),
        ("loss 2.41, step 3", "loss 2.44, step 3", 1e-4, False),
        ("loss 2.41, step 3", "loss 2.41, step 4", 1e-4, False),
        ("loss 2.41", "Loss 2.41", 1e-4, False),
        ([1, 2], [1], None, False),
        ({"a": 1}, {"a": 1, "b": 2}, None, False),
        ({"a": [None, "x"]}, {"a": [None, "x"]}, 1e-4, True),
    ],
)
def test_floats_may_be_noisy_and_nothing_else(recorded: object, found: object, tolerance: float | None, same: bool) -> None:
    assert (differences(recorded, found, tolerance) == []) is same
