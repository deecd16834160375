"""What a person sees of finished stages: pages from artifacts, names, pictures."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_schemas.manifest import Manifest, file_entries
from data_schemas.params import ModelParams
from data_schemas.storage import Artifact
from tasks.prefect_tasks.observer import MOST_BYTES, light_png
from tasks.prefect_tasks.pages.elements import Picture, markdown_table, plain
from tasks.prefect_tasks.pages.training import finished_training, sparkline
from tasks.prefect_tasks.run_labels import base_name, extension_of

LINE = {"step": 7, "loss": 2.5, "learning_rate": 3e-4, "tokens_per_s": 5123, "peak_memory_mb": 1200, "seconds_left": 42.0}


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
