"""The files of an evaluation's results. The stage writes them, and anybody can compute them again from the rows.

settings.json  *_samples.parquet      what was measured; everything else is computed from it
report.json    report.md              the report, for programs and for people
perplexity.png  position.png  TASK.png  middle_TASK.png
"""

from __future__ import annotations

from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.report import EvaluationSettings, Report, read_settings, record_json
from tasks.evaluate.plots.perplexity_plots import plot_perplexity, plot_position
from tasks.evaluate.plots.task_plots import plot_grid, plot_middle
from tasks.evaluate.report.build import build_report
from tasks.evaluate.report.tables import markdown_tables
from tasks.evaluate.sample_set import Samples

SETTINGS_NAME = "settings.json"
REPORT_NAME = "report.json"
PAGE_NAME = "report.md"


def write_results(folder: Path, samples: Samples, settings: EvaluationSettings) -> Report:
    """Write report.json, report.md and every figure that has rows into `folder`, and return the report."""
    report = build_report(samples, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_NAME).write_text(record_json(report), encoding="utf-8")
    plots = write_plots(folder, report)
    images = "".join(f"\n![{plot.stem.replace('_', ' ')}]({plot.name})\n" for plot in plots)
    (folder / PAGE_NAME).write_text(f"# Evaluation\n\n{markdown_tables(report)}{images}", encoding="utf-8")
    return report


def write_plots(folder: Path, report: Report) -> list[Path]:
    """Draw every figure that the report has rows for; returns the paths."""
    written = []
    if report.perplexity:
        plot_perplexity(report.perplexity, report.settings, written_to := folder / "perplexity.png")
        written.append(written_to)
    if report.position:
        plot_position(report, written_to := folder / "position.png")
        written.append(written_to)
    for task in dict.fromkeys(row.task for row in report.tasks):
        plot_grid(report, task, written_to := folder / f"{task}.png")
        written.append(written_to)
    for task in dict.fromkeys(row.task for row in report.lost_in_the_middle):
        plot_middle(report, task, written_to := folder / f"middle_{task}.png")
        written.append(written_to)
    return written


def recompute(folder: Path, destination: Path) -> Report:
    """Compute every figure again from the rows and settings in `folder`, and write it to `destination`.

    Raises:
        UserError: rows or settings are missing, or not what an evaluation wrote.
    """
    settings = read_settings(folder / SETTINGS_NAME)
    samples = Samples.read(folder)
    try:
        return write_results(destination, samples, settings)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"The samples in {folder} do not make a report ({error}): give an evaluation's folder as it was written."
        ) from error
