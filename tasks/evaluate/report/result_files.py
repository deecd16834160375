"""What a reader gets from an evaluation's rows: report, page and figures, written by the stage and again by anybody.

settings.json  *_samples.parquet      what was measured, from which all else here is computed
report.json    report.md              the report, for programs and for people
perplexity.png  position.png  TASK.png  middle_TASK.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from tasks.evaluate.plots.perplexity_plots import plot_perplexity, plot_position
from tasks.evaluate.plots.task_plots import plot_grid, plot_middle
from tasks.evaluate.report.build import Report, Samples, build_report
from tasks.evaluate.report.tables import markdown_tables

SETTINGS_NAME = "settings.json"
REPORT_NAME = "report.json"
PAGE_NAME = "report.md"
REQUIRED_SETTINGS = ("base_window", "target_length", "target_tokens", "confidence", "seed", "non_inferiority_margin")


def write_results(folder: Path, samples: Samples, settings: dict[str, Any]) -> Report:
    """Write report.json, report.md and every figure that has rows into `folder`, and return the report."""
    report = build_report(samples, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_NAME).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    plots = write_plots(folder, report)
    images = "".join(f"\n![{plot.stem.replace('_', ' ')}]({plot.name})\n" for plot in plots)
    (folder / PAGE_NAME).write_text(f"# Evaluation\n\n{markdown_tables(report)}{images}", encoding="utf-8")
    return report


def write_plots(folder: Path, report: Report) -> list[Path]:
    """Every figure that the report has rows for; the paths written."""
    written = []
    if report["perplexity"]:
        plot_perplexity(report, written_to := folder / "perplexity.png")
        written.append(written_to)
    if report["position"]:
        plot_position(report, written_to := folder / "position.png")
        written.append(written_to)
    for task in dict.fromkeys(row["task"] for row in report["tasks"]):
        plot_grid(report, task, written_to := folder / f"{task}.png")
        written.append(written_to)
    for task in dict.fromkeys(row["task"] for row in report["lost_in_the_middle"]):
        plot_middle(report, task, written_to := folder / f"middle_{task}.png")
        written.append(written_to)
    return written


def recompute(folder: Path, destination: Path) -> Report:
    """Every figure again, from the rows and settings in `folder`, written to `destination`.

    Raises:
        UserError: rows or settings are missing, or not what an evaluation wrote.
    """
    settings = read_settings(folder)
    samples = Samples.read(folder)
    try:
        return write_results(destination, samples, settings)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The samples in {folder} do not make a report ({error}): give an evaluation's folder as it was written."
        ) from error


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that stand beside the samples. UserError if there are none, or not enough."""
    path = folder / SETTINGS_NAME
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: give the folder of an evaluation, or `evaluation` of a release.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: give an evaluation's folder as it was written.") from error
    if not isinstance(settings, dict) or (lacking := [name for name in REQUIRED_SETTINGS if name not in settings]):
        missing = lacking[0] if isinstance(settings, dict) else "everything"
        raise UserError(f"{path} lacks {missing}: give an evaluation's folder as it was written.")
    return settings
