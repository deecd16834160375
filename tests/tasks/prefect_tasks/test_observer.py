"""What a person sees of stages: pages from artifacts, the live view of training, and nothing of it stopping a stage."""

import io
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_schemas.manifest import Manifest, file_entries
from data_schemas.params import ModelParams
from data_schemas.storage import Artifact
from ray_jobs.finetune.training.progress import describe
from tasks.prefect_tasks.live_training import LiveTraining, heard_step
from tasks.prefect_tasks.observer import MOST_BYTES, light_png
from tasks.prefect_tasks.pages.elements import Page, Picture, Share, markdown_table, plain
from tasks.prefect_tasks.pages.training import finished_training, sparkline
from tasks.prefect_tasks.periodic import Periodic
from tasks.prefect_tasks.run_labels import base_name, extension_of

LINE = {"step": 7, "loss": 2.5, "learning_rate": 3e-4, "tokens_per_s": 5123, "peak_memory_mb": 1200, "seconds_left": 42.0}


@given(
    step=st.integers(1, 9999),
    loss=st.floats(0, 20),
    heldout=st.none() | st.floats(0, 20),
    speed=st.integers(1, 10**7),
    left=st.floats(0, 1e5),
    mfu=st.none() | st.floats(0, 1),
)
def test_a_told_step_is_heard_as_it_was(step, loss, heldout, speed, left, mfu):
    line = LINE | {"step": step, "loss": loss, "tokens_per_s": speed, "seconds_left": left}
    line |= {"validation_loss": heldout} if heldout is not None else {}
    line |= {"mfu": mfu} if mfu is not None else {}
    heard = heard_step(f"(job log) {describe(line, 9999)}")
    assert set(heard) == set(line)
    for name, tolerance in (("step", 0), ("loss", 1e-3), ("tokens_per_s", 0), ("seconds_left", 31), ("peak_memory_mb", 51)):
        assert heard[name] == pytest.approx(line[name], abs=tolerance), name


def test_other_lines_are_no_steps():
    assert heard_step("finetune: starting Ray (local) with 2 worker(s); events: /a/tensorboard") is None
    assert heard_step("evaluate: step 1/2 of something") is None


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_shown_from_its_file_where_that_can_be_read(tmp_path):
    """Of a run that goes on, steps of before are seen too; `hear` never waits for `show`."""
    lines = [LINE | {"step": step, "loss": 3.0 - step / 10} for step in range(1, 6)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = []
    with LiveTraining("Fine-tuning it", 10, shown.append, every_s=0.01) as live:
        live.hear(f"finetune: starting Ray (local) with 1 worker(s); events: {tmp_path}/tensorboard")
        live.hear(describe(lines[-1], 10))
        wait_for(lambda: len(shown) >= 3)
    share, page, picture = shown[:3]
    assert isinstance(share, Share)
    assert share.share == 0.5
    assert "Step 5 of 10, about 42 s left" in page.text
    assert "| 2.900 | 2.500 |" in page.text
    assert picture.png.startswith(b"\x89PNG")
    assert len(shown) == 3, "a step is shown once"


def test_a_run_elsewhere_is_shown_from_its_lines():
    shown = []
    with LiveTraining("Fine-tuning it", 10, shown.append, every_s=60) as live:
        live.hear("finetune: starting Ray (auto) with 1 worker(s); events: /not/on/this/machine/tensorboard")
        for step in (1, 2):
            live.hear(describe(LINE | {"step": step, "loss": 3.0 - step}, 10))
    page = next(found for found in shown if isinstance(found, Page))  # shown at the end, long before a minute is over
    assert "Step 2 of 10" in page.text
    assert "| 2.000 | 1.000 |" in page.text


def test_a_cancelled_run_waits_for_nothing_shown():
    entered, free = threading.Event(), threading.Event()

    def stuck():
        entered.set()
        free.wait(60)

    def cancelled():
        with Periodic(stuck, 0.01):
            assert entered.wait(20)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert time.monotonic() - started < 10, "a clean end would wait for the one that is stuck"
    free.set()


def test_a_finished_run_is_a_page_and_a_plot(tmp_path):
    steps = [LINE | {"step": n, "loss": 3 - n / 4, "tokens": 100, "seconds": 2.0, "validation_loss": 2.0} for n in (1, 2)]
    for name in ("training_log.jsonl", "progress.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(step) + "\n" for step in steps))
    (tmp_path / "rope_plan.json").write_text(json.dumps({"reason": "yarn was asked for."}))
    waiting = [{"world_size": 2, "before": 1.2, "after": 1.05}]
    summary = {"rope_method": "yarn", "factor": 4.0, "steps": 2, "waiting_for_ranks": waiting}
    page, plot = finished_training(artifact_of(tmp_path, summary), "Fine-tuning it")
    assert isinstance(plot, Picture)
    for told in ("Step 2 of 2.", "yarn x4; yarn was asked for.", "1.05 with 2 ranks", "4.0 s in steps", "| 50 |"):
        assert told in page.text, told


def artifact_of(folder: Path, summary) -> Artifact:
    manifest = Manifest(
        stage="s", params={}, code_version=1, parents={}, digest="0" * 32, summary=summary, files=file_entries(folder)
    )
    return Artifact(folder, manifest, reused=False)


def test_a_name_says_model_lengths_and_method(tmp_path):
    assert extension_of(ModelParams(base="demo", target_length=2048, rope_method="auto")) == "demo-base 512 -> 2048 yarn"
    missing = ModelParams(base=str(tmp_path / "my-model"), target_length=4096)
    assert extension_of(missing) == "my-model -> 4096 auto"
    assert [base_name(base) for base in ("org/Model-7B", "/models/a/", "demo", "")] == ["Model-7B", "a", "demo-base", "base"]


def test_text_of_a_corpus_is_no_markup():
    hostile = "![x](http://evil) <script>a|b</script>\n`*_[link](javascript:1)" + "z" * 500
    cell = plain(hostile)
    assert "<" not in cell
    assert "\n" not in cell
    assert "http://" not in cell
    assert all(cell[place - 1] == "\\" for place, character in enumerate(cell) if character in "|`*_[]")
    table = markdown_table(("text", "number"), [(cell, 1234)])
    assert table.splitlines()[1] == "| --- | ---: |"
    assert table.endswith("| 1,234 |")


def test_a_big_picture_gets_lighter_and_stays_a_picture():
    noise = np.random.default_rng(0).integers(0, 256, (400, 700, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(noise).save(png, "PNG")
    light = light_png(png.getvalue())
    assert len(light) <= MOST_BYTES < len(png.getvalue())
    assert Image.open(io.BytesIO(light)).width >= 300
    assert light_png(light) is light


def test_a_curve_of_bars():
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert len(sparkline([float(n) for n in range(1000)])) == 60
