"""The report as Markdown: `report.md`, the model card's tables, and the page in Prefect."""

from __future__ import annotations

from collections.abc import Sequence

from data_schemas.report import Report
from tasks.evaluate.report.about import about
from tasks.evaluate.report.section import Table
from tasks.evaluate.report.sections import report_sections
from tasks.evaluate.report.verdict import four_numbers, verdict


def markdown_tables(report: Report) -> str:
    """All sections that have something to say, each under a heading of the third level."""
    sections = []
    for section in report_sections(report):
        table = f"{_markdown(section.table)}\n\n" if section.table else ""
        sections.append(f"### {section.title}\n\n{table}{section.note}")
    return "\n\n".join(sections) + "\n"


def markdown_verdict(report: Report) -> str:
    """The five lines and the four numbers."""
    lines = "\n".join(f"- **{line.question} {line.answer.capitalize()}.** {line.sentence}" for line in verdict(report))
    return f"{lines}\n\n{_markdown((['number', 'value'], [[number.name, number.value] for number in four_numbers(report)]))}\n"


def markdown_about(report: Report) -> str:
    """What was measured, when and with what, as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in about(report)) + "\n"


def _markdown(table: Table) -> str:
    columns, rows = table

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
