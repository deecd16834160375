"""An evaluation as a page of tables, and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from data_schemas.report import read_report
from data_schemas.storage import Artifact
from tasks.evaluate.report.tables import markdown_tables
from tasks.prefect_tasks.pages.elements import Page, Picture, small_file

KEY = "evaluation"


def evaluation_shown(artifact: Artifact, title: str) -> Iterator[Page | Picture]:
    """The report's tables, then each figure: perplexity, and heat maps and curves of every task."""
    with small_file(artifact, "report.json") as path:
        tables = markdown_tables(read_report(path)) if path else "The report cannot be shown: it is not on this machine.\n"
    yield Page(f"{KEY}-tables", f"## {title}\n\n{tables}\nSamples and report: artifact `{artifact.location}`.\n")
    for entry in artifact.manifest.files:
        name = PurePosixPath(entry.path)
        if name.suffix == ".png":
            with small_file(artifact, entry.path) as path:
                if path is not None:
                    yield Picture(f"{KEY}-{name.stem.lower().replace('_', '-')}", path.read_bytes())
