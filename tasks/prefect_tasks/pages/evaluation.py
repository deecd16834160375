"""An evaluation as a page of tables, and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from data_schemas.report import read_report
from data_schemas.storage import Artifact
from tasks.evaluate.report.markdown_page import markdown_about, markdown_tables, markdown_verdict
from tasks.evaluate.report.result_files import HTML_NAME, REPORT_NAME
from tasks.prefect_tasks.pages.elements import Page, Picture, small_file

KEY = "evaluation"


def evaluation_shown(artifact: Artifact, title: str) -> Iterator[Page | Picture]:
    """The verdict and the tables, then each figure: perplexity, and heat maps and curves of every task."""
    with small_file(artifact, REPORT_NAME) as path:
        report = read_report(path) if path else None
    if report is None:
        text = "The report cannot be shown: it is not on this machine.\n"
    else:
        text = f"{markdown_verdict(report)}\n{markdown_about(report)}\n{markdown_tables(report)}"
    where = (
        f"Open `{HTML_NAME}` in `{artifact.location}` in a browser for sortable tables and figures. The samples are there too."
    )
    yield Page(f"{KEY}-tables", f"## {title}\n\n{where}\n\n{text}")
    for entry in artifact.manifest.files:
        name = PurePosixPath(entry.path)
        if name.suffix == ".png":
            with small_file(artifact, entry.path) as path:
                if path is not None:
                    yield Picture(f"{KEY}-{name.stem.lower().replace('_', '-')}", path.read_bytes())
