"""Progress events: the same on both sides of a job's log, never mistaken for another line, and their words for people."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.progress import (
    EvaluationEstimate,
    ProgressEvent,
    SamplesMeasured,
    StepFigures,
    TrainingStarted,
    TrainingStep,
    decode,
    describe,
    encode,
    message,
)

counts = st.integers(0)
numbers = st.floats(allow_nan=False)  # a NaN is not equal to itself
FIGURES = st.builds(
    StepFigures,
    step=st.integers(1),
    loss=numbers,
    learning_rate=numbers,
    tokens=st.none() | st.integers(0, 10**12),
    validation_loss=st.none() | numbers,
    mfu=st.none() | numbers,
)
EVENTS = st.one_of(
    st.builds(message, st.text()),
    st.builds(
        TrainingStarted, ray_address=st.text(), num_workers=counts, progress_file=st.text(), tensorboard_folder=st.text()
    ),
    st.builds(TrainingStep, num_steps=st.integers(1), figures=FIGURES),
    st.builds(EvaluationEstimate, num_samples=counts, num_windows=counts, num_tokens=counts, flops=numbers, seconds=numbers),
    st.builds(SamplesMeasured, num_done=st.integers(0), num_samples=st.integers(0), share=st.floats(0, 1), seconds=numbers),
)


@given(EVENTS)
def test_an_event_is_one_line_and_comes_back_as_it_was(event: ProgressEvent) -> None:
    line = encode(event)
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line)["ropeway_event"] == event.ropeway_event
    assert decode(line) == event


def test_a_loss_that_is_not_finite_comes_back() -> None:
    event = TrainingStep(num_steps=2, figures=StepFigures(step=1, loss=float("nan"), learning_rate=float("inf")))
    figures = decode(encode(event)).figures
    assert figures.loss != figures.loss
    assert figures.learning_rate == float("inf")


STEP = encode(TrainingStep(num_steps=10, figures=StepFigures(step=1, loss=2.5, learning_rate=1e-3)))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "finetune: step 1/10, loss 2.500, lr 1.0e-03",
        '{"step": 1, "loss": 2.5, "learning_rate": 0.001}',
        '{"text": "no mark"}',
        f"(RayTrainWorker pid=7) {STEP}",
        STEP[:-1],
        STEP + STEP,
        '{"ropeway_event":"of a later version","text":"x"}',
        '{"ropeway_event":"training_step","num_steps":10}',
    ],
)
def test_no_other_line_is_an_event(line: str) -> None:
    assert decode(line) is None


def test_a_newer_job_may_report_more() -> None:
    line = STEP.replace('"step":1', '"step":1,"sequence_workers":4')
    assert line != STEP
    assert decode(line) == decode(STEP)


def test_words_for_people() -> None:
    figures = StepFigures(
        step=1, loss=2.9, learning_rate=1e-3, validation_loss=2.9, tokens_per_s=2000, mfu=0.4123, peak_memory_mb=2340, seconds_left=18
    )  # fmt: skip
    assert describe(TrainingStep(num_steps=10, figures=figures)) == (
        "finetune: step 1/10, loss 2.900, held-out 2.900, lr 1.0e-03, 2,000 tokens/s, MFU 41%, 2.3 GB, 18 s left"
    )
    folder = {"progress_file": "w/progress.jsonl", "tensorboard_folder": "w/tensorboard"}
    assert describe(TrainingStarted(ray_address="local", num_workers=2, **folder)) == (
        "finetune: starting Ray (local) with 2 worker(s); events: w/tensorboard"
    )
    assert "with 1 to 2 worker(s)" in describe(TrainingStarted(ray_address="a", num_workers=2, min_workers=1, **folder))
    estimate = EvaluationEstimate(num_samples=1000, num_windows=2000, num_tokens=30_000, flops=2.5e12, seconds=130)
    assert describe(estimate).startswith(
        "evaluate: 1,000 samples in 2,000 windows of 30,000 tokens, 2.5 TFLOP: at most about 2 min 10 s"
    )
    measured = SamplesMeasured(num_done=12, num_samples=40, share=0.25, seconds=10, seconds_left=30)
    assert describe(measured) == "evaluate: 12 of 40 samples, about 30 s left"
    assert describe(measured.model_copy(update={"seconds_left": None})).endswith("samples, kept from an interrupted run")
    assert describe(measured.model_copy(update={"num_done": 40})) == "evaluate: 40 of 40 samples, 10 s"
