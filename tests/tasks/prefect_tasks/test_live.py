"""What a person sees of a stage while it runs: made of events, whatever their words, and never in the stage's way."""

import json
import threading

import pytest

from data_schemas import progress
from data_schemas.progress import SamplesMeasured, StepFigures, TrainingStarted, TrainingStep, encode, message
from ray_jobs.submit.job_log import event_of
from tasks.prefect_tasks import live as live_module
from tasks.prefect_tasks.live import LiveEvaluation, LiveTraining, Periodic
from tasks.prefect_tasks.pages.elements import Page, Share
from tests.waiting import HANGS_AFTER_S, wait_until

FIGURES = {"learning_rate": 3e-4, "tokens_per_s": 5123, "peak_memory_mb": 1200, "seconds_left": 42.0}


def step(number, loss, num_steps=10):
    return TrainingStep(num_steps=num_steps, figures=StepFigures(step=number, loss=loss, **FIGURES))


def started(folder):
    files = {"progress_file": f"{folder}/progress.jsonl", "tensorboard_folder": f"{folder}/tensorboard"}
    return TrainingStarted(ray_address="local", num_workers=1, **files)


def test_a_run_is_shown_from_its_file_where_that_can_be_read(tmp_path):
    """Of a run that continues, earlier steps are shown too; `hear` never waits for `show`."""
    steps = [{"step": number, "loss": 3.0 - number / 10} | FIGURES for number in range(1, 6)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    shown = []
    with LiveTraining("Fine-tuning it", 10, shown.append, every_s=0.01) as live:
        live.hear(started(tmp_path))
        live.hear(step(5, 2.5))
        wait_until(lambda: len(shown) >= 3, shown)
    share, page, picture = shown[:3]
    assert isinstance(share, Share)
    assert share.share == 0.5
    assert "Step 5 of 10, about 42 s left" in page.text
    assert "| 2.900 | 2.500 |" in page.text
    assert picture.png.startswith(b"\x89PNG")
    assert len(shown) == 3, "a step is shown once"


def shown_of_job(lines):
    """The page of a job on another machine that wrote these lines into its log."""
    shown = []
    with LiveTraining("Fine-tuning it", 10, shown.append, every_s=60) as live:
        for line in lines:
            if (event := event_of(line)) is not None:
                live.hear(event)
    return next(found for found in shown if isinstance(found, Page))  # shown at the end, long before a minute is over


def test_rewording_progress_changes_no_page(monkeypatch):
    """A job's log holds events among lines that only look like them; the words for people may say anything."""
    lines = [
        encode(started("/not/on/this/machine")),
        "finetune: step 9/10, loss 9.000, lr 3.0e-04, 5,123 tokens/s, 1.2 GB, 42 s left",
        encode(step(1, 2.0)),
        '{"step": 8, "loss": 8.0, "learning_rate": 0.1}',
        encode(message("finetune: step 7/10, loss 7.000")),
        f"(RayTrainWorker pid=7) {encode(step(6, 6.0))}",
        encode(step(2, 1.0)),
        encode(step(3, 3.0))[:-5],
    ]
    page = shown_of_job(lines)
    assert "Step 2 of 10, about 42 s left" in page.text
    assert "| 2.000 | 1.000 |" in page.text
    monkeypatch.setattr(progress, "describe", lambda event: "it goes well")
    monkeypatch.setattr(progress, "_describe_step", lambda *_: "it goes well")
    assert shown_of_job(lines) == page


def test_the_share_of_an_evaluation_is_shown_once_it_grows():
    shown = []
    with LiveEvaluation("Evaluation of it", shown.append, every_s=0.01) as live:
        live.hear(message("evaluate: 3 of 4 samples"))
        live.hear(SamplesMeasured(num_done=1, num_samples=4, share=0.25, seconds=1))
        wait_until(lambda: shown, shown)
        live.hear(SamplesMeasured(num_done=4, num_samples=4, share=1.0, seconds=4))
    assert [share.share for share in shown] == [0.25, 1.0]
    assert {share.key for share in shown} == {"evaluation-progress"}


def test_a_cancelled_run_waits_for_nothing_shown(monkeypatch):
    monkeypatch.setattr(live_module, "_LAST_UPDATE_S", 600)
    entered, free, left = threading.Event(), threading.Event(), threading.Event()

    def stuck():
        entered.set()
        free.wait(HANGS_AFTER_S)
        left.set()

    def cancelled():
        with Periodic(stuck, 0.01):
            assert entered.wait(HANGS_AFTER_S)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert not left.is_set(), "it waited for the update that is stuck"
    free.set()
