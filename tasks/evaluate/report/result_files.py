"""The files of an evaluation's results. The stage writes them, and anybody can compute them again from the rows.

settings.json  *_samples.parquet      what was measured; everything else is computed from it
report.json                           the report, for programs
report.html    report.md              for people: one page to open in a browser, and text
perplexity.png  effective_length.png  tasks.png  position.png  TASK.png  middle_TASK.png  spacing_TASK.png
"""

from __future__ import annotations

from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.report import EvaluationSettings, Report, read_settings, record_json
from tasks.evaluate.plots.all_plots import plots_of
from tasks.evaluate.report.build import build_report
from tasks.evaluate.report.html_page import html_page
from tasks.evaluate.report.markdown_page import markdown_about, markdown_tables, markdown_verdict
from tasks.evaluate.sample_set import Samples

SETTINGS_NAME = "settings.json"
REPORT_NAME = "report.json"
PAGE_NAME = "report.md"
HTML_NAME = "report.html"


def write_results(folder: Path, samples: Samples, settings: EvaluationSettings) -> Report:
    """Write report.json, report.md, report.html and every figure that has rows into `folder`, and return the report."""
    report = build_report(samples, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_NAME).write_text(record_json(report), encoding="utf-8")
    write_pages(folder, report)
    return report


def write_pages(folder: Path, report: Report) -> None:
    """Write what a person reads: both pages and the figures."""
    plots = list(plots_of(report))
    (folder / HTML_NAME).write_text(html_page(report, plots), encoding="utf-8")
    for plot in plots:
        plot.save_png(folder / f"{plot.name}.png")
    images = "".join(f"\n![{plot.title}]({plot.name}.png)\n" for plot in plots)
    text = f"# Evaluation\n\n{markdown_verdict(report)}\n{markdown_about(report)}\n{markdown_tables(report)}{images}"
    (folder / PAGE_NAME).write_text(text, encoding="utf-8")


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
